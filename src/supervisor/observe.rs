//! Asking roles for metrics and health, and telling the host's.
//!
//! Owns: the HTTP client over the roles' unix sockets, the merged `/metrics`, the host's `/health`. Called by: the
//! supervisor. Never: trusts a role's answer further than its bounds: text of so many bytes, in so much time.
//! Spec: the Prometheus text exposition format, version 0.0.4.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http_body_util::{BodyExt, Limited};
use hyper_util::rt::TokioIo;
use prometheus::{Gauge, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};

use super::boot;
use super::control::{self, Reply};
use super::status::{State as RoleState, Status};
use crate::config::hosts::Role;
use crate::net::{Listener, Shutdown, http};

/// Bytes of a role's answer, at most.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Time that a role has for an answer.
const ANSWER_PATIENCE: Duration = Duration::from_secs(2);

/// Asks a role: status and body.
pub(super) async fn ask(socket: &Path, target: &str) -> io::Result<(StatusCode, String)> {
    tokio::time::timeout(ANSWER_PATIENCE, exchange(socket, target))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

async fn exchange(socket: &Path, target: &str) -> io::Result<(StatusCode, String)> {
    let stream = TokioIo::new(UnixStream::connect(socket).await?);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.map_err(io::Error::other)?;
    let connection = tokio::spawn(connection);
    let request = Request::get(target).header(header::HOST, "role").body(Body::empty()).map_err(io::Error::other)?;
    let answer = sender.send_request(request).await.map_err(io::Error::other)?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(io::Error::other)?;
    connection.abort();
    String::from_utf8(body.to_bytes().to_vec()).map(|body| (status, body)).map_err(io::Error::other)
}

/// What a role says of itself, put into its status: good, or bad and why.
pub(super) async fn examine(socket: &Path) -> (RoleState, Option<String>) {
    match ask(socket, "/health").await {
        Ok((StatusCode::OK, _)) => (RoleState::Good, None),
        Ok((_, body)) => {
            let said: Option<serde_json::Value> = serde_json::from_str(&body).ok();
            let reason = said.as_ref().and_then(|said| said.get("reason")?.as_str());
            (RoleState::Bad, Some(reason.unwrap_or("says that it is not well").to_owned()))
        }
        Err(error) => (RoleState::Bad, Some(format!("does not answer: {error}"))),
    }
}

/// What the merged pages are made from.
#[derive(Clone)]
pub(super) struct Source {
    pub(super) asked: mpsc::Sender<control::Asked>,
    pub(super) run_dir: std::path::PathBuf,
}

impl Source {
    async fn status(&self) -> Option<Box<Status>> {
        let (sender, receiver) = oneshot::channel();
        self.asked.send((control::Request::Status, sender)).await.ok()?;
        match receiver.await.ok()? {
            Reply::Status(status) => Some(status),
            Reply::Reloaded(_) | Reply::Stopping | Reply::Done(_) | Reply::Refused(_) => None,
        }
    }
}

/// Answers `GET /metrics` and `GET /health` of the host until shutdown.
pub(super) async fn serve(listener: Listener, source: Source, shutdown: Shutdown) {
    let router =
        Router::new().route("/metrics", get(answer_metrics)).route("/health", get(answer_health)).with_state(source);
    http::serve(listener, router, shutdown).await;
}

async fn answer_health(State(source): State<Source>) -> Response {
    let Some(status) = source.status().await else { return StatusCode::SERVICE_UNAVAILABLE.into_response() };
    let roles: BTreeMap<&str, serde_json::Value> = status
        .roles
        .iter()
        .map(|role| (role.role.name(), serde_json::json!({ "state": role.state, "reason": role.reason })))
        .collect();
    let body =
        serde_json::json!({ "health": if status.good { "good" } else { "bad" }, "host": status.host, "roles": roles });
    let code = if status.good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

async fn answer_metrics(State(source): State<Source>) -> Response {
    let Some(status) = source.status().await else { return StatusCode::SERVICE_UNAVAILABLE.into_response() };
    let mut texts = vec![own_metrics(&status).unwrap_or_default()];
    for role in status.roles.iter().filter(|role| role.pid.is_some()) {
        // A role that does not answer shows as down in our own metrics.
        if let Ok((StatusCode::OK, text)) = ask(&source.run_dir.join(socket_name(role.role)), "/metrics").await {
            texts.push(text);
        }
    }
    http::prometheus(merge(&texts))
}

/// File name of the socket on which a role is asked.
pub(super) fn socket_name(role: Role) -> String {
    format!("{role}.metrics.sock")
}

/// The supervisor's own: is each role up, how often was it restarted, what memory does it hold; is each mount well.
pub(super) fn own_metrics(status: &Status) -> prometheus::Result<String> {
    let registry = Registry::new();
    let gauge = |name: &str, help: &str| -> prometheus::Result<IntGaugeVec> {
        let gauge = IntGaugeVec::new(Opts::new(name, help), &["role"])?;
        registry.register(Box::new(gauge.clone()))?;
        Ok(gauge)
    };
    let up = gauge("fife_supervisor_role_up", "1 when the role serves and says that it is well.")?;
    let restarts = gauge("fife_supervisor_role_restarts", "Times that the role was started again after it had ended.")?;
    let memory = gauge("fife_supervisor_role_resident_bytes", "Memory that the role's process holds.")?;
    let uptime = gauge("fife_supervisor_role_uptime_seconds", "Age of the role's process.")?;
    let mounts = IntGaugeVec::new(
        Opts::new("fife_supervisor_mount_up", "1 when the disk or file server's directory is mounted and well."),
        &["mount"],
    )?;
    registry.register(Box::new(mounts.clone()))?;
    for mount in &status.mounts {
        mounts.with_label_values(&[mount.name.as_str()]).set(i64::from(mount.is_good()));
    }
    let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    for role in &status.roles {
        let label = [role.role.name()];
        up.with_label_values(&label).set(i64::from(role.state == RoleState::Good));
        restarts.with_label_values(&label).set(signed(role.restarts));
        memory.with_label_values(&label).set(signed(role.rss_bytes.unwrap_or(0)));
        uptime.with_label_values(&label).set(signed(role.uptime_secs));
    }
    if let Some(disk) = &status.disk {
        let facts = [
            (
                "fife_supervisor_disk_good",
                "1 when the disk under the state directory has room and can be written.",
                u64::from(disk.trouble.is_none()),
            ),
            ("fife_supervisor_disk_size_bytes", "Size of the disk under the state directory.", disk.size_bytes),
            ("fife_supervisor_disk_free_bytes", "Free space there.", disk.free_bytes),
        ];
        for (name, help, value) in facts {
            let gauge = IntGauge::new(name, help)?;
            gauge.set(signed(value));
            registry.register(Box::new(gauge))?;
        }
    }
    if let Some(clock) = &status.clock {
        clock_metrics(&registry, clock)?;
    }
    TextEncoder::new().encode_to_string(&registry.gather())
}

/// Of the appliance: how right is the clock.
fn clock_metrics(registry: &Registry, clock: &boot::clock::Report) -> prometheus::Result<()> {
    let rows = [
        (
            "fife_supervisor_clock_synchronised",
            "1 when time servers agree on the time.",
            Some(f64::from(clock.synchronised)),
        ),
        (
            "fife_supervisor_clock_offset_seconds",
            "What the last answer that was followed said that the clock was late by.",
            clock.offset_secs,
        ),
        (
            "fife_supervisor_clock_answer_age_seconds",
            "Age of that answer.",
            clock.answer_age_secs.map(|age| Duration::from_secs(age).as_secs_f64()),
        ),
    ];
    for (name, help, value) in rows {
        // Nobody has answered: what is not known is not told.
        if let Some(value) = value {
            let gauge = Gauge::new(name, help)?;
            gauge.set(value);
            registry.register(Box::new(gauge))?;
        }
    }
    Ok(())
}

/// A metric with its samples.
#[derive(Default)]
struct Family<'a> {
    help: Option<&'a str>,
    kind: Option<&'a str>,
    samples: Vec<&'a str>,
}

/// One text out of several: each family once, with the samples of all. Roles carry a `role` label, so that no sample
/// stands there twice.
pub(super) fn merge(texts: &[String]) -> String {
    let mut families: BTreeMap<&str, Family<'_>> = BTreeMap::new();
    for text in texts {
        let mut current = "";
        for line in text.lines().filter(|line| !line.is_empty()) {
            let comment = |kind: &str| {
                let rest = line.strip_prefix(kind)?;
                Some(rest.split_once(' ').map_or(rest, |(name, _)| name))
            };
            if let Some(name) = comment("# HELP ") {
                current = name;
                families.entry(name).or_default().help.get_or_insert(line);
            } else if let Some(name) = comment("# TYPE ") {
                current = name;
                families.entry(name).or_default().kind.get_or_insert(line);
            } else if !line.starts_with('#') {
                families.entry(current).or_default().samples.push(line);
            }
        }
    }
    let mut merged = String::new();
    for family in families.values() {
        for line in family.help.iter().chain(&family.kind).chain(&family.samples) {
            merged.push_str(line);
            merged.push('\n');
        }
    }
    merged
}
