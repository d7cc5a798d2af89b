//! Counters of the process as Prometheus text, and its health.
//!
//! Owns: the registry, `/metrics` and `/health` of a role. Called by: everyone that counts; each role's
//! `serve` once. Never: serves anybody but the supervisor (the socket is the supervisor's).
//! Spec: the Prometheus text exposition format, version 0.0.4.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, OnceLock};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus::core::Collector;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder};
use tracing::error;

use super::http;
use super::listener::Listener;
use super::shutdown::Shutdown;

static REGISTRY: LazyLock<Registry> = LazyLock::new(|| {
    let labels = ROLE.get().map(|role| HashMap::from([("role".to_owned(), (*role).to_owned())]));
    // Fails only for an empty prefix, and there is none.
    Registry::new_custom(None, labels).unwrap_or_default()
});
static ROLE: OnceLock<&'static str> = OnceLock::new();

/// Gives every metric of this process the label `role`, so that the supervisor can put those of all roles on one page.
/// Called once, before the first metric.
pub(super) fn label(role: &'static str) {
    // Set already: this process receives a second handover, which happens in tests only.
    ROLE.set(role).ok();
}

/// How a role is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    Good,
    /// Why it cannot do its work, for the postmaster.
    Bad(String),
}

/// The one registry of this process.
#[must_use]
pub fn registry() -> &'static Registry {
    &REGISTRY
}

/// A counter in the registry. Names: `fife_<role>_<noun>_<unit>_total`.
#[must_use]
pub fn counter(name: &str, help: &str) -> IntCounter {
    register(IntCounter::new(name, help))
}

/// A family of counters in the registry, told apart by labels. Label values must come from a small fixed set.
#[must_use]
pub fn counters(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    register(IntCounterVec::new(Opts::new(name, help), labels))
}

/// A gauge in the registry.
#[must_use]
pub fn gauge(name: &str, help: &str) -> IntGauge {
    register(IntGauge::new(name, help))
}

/// A histogram in the registry; `buckets` are upper bounds in the unit of its name.
#[must_use]
pub fn histogram(name: &str, help: &str, buckets: &[f64]) -> Histogram {
    register(Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec())))
}

/// Puts a metric into the registry.
///
/// Names are literals of the source, so neither step fails but by a bug; a role must not die of a miscounted metric.
fn register<C: Collector + Clone + 'static>(made: prometheus::Result<C>) -> C {
    #[expect(clippy::expect_used, reason = "names and labels are literals that the first test of a role meets")]
    let metric = made.expect("metric name and labels are valid");
    if let Err(error) = REGISTRY.register(Box::new(metric.clone())) {
        error!(%error, "metric is not shown");
    }
    metric
}

/// All metrics of this process as text.
#[must_use]
pub fn text() -> String {
    let mut text = String::new();
    if let Err(error) = TextEncoder::new().encode_utf8(&REGISTRY.gather(), &mut text) {
        error!(%error, "metrics cannot be written");
    }
    text
}

/// Answers `GET /metrics` and `GET /health` until shutdown, and what else a role is asked on its own socket.
pub(super) async fn serve<H>(listener: Listener, health: H, more: Router, shutdown: Shutdown)
where
    H: Fn() -> Health + Send + Sync + 'static,
{
    let router = Router::new()
        .route("/metrics", get(|| async { http::prometheus(text()) }))
        .route("/health", get(answer_health::<H>))
        .with_state(Arc::new(health))
        .merge(more);
    http::serve(listener, router, shutdown).await;
}

async fn answer_health<H: Fn() -> Health>(State(health): State<Arc<H>>) -> Response {
    let (status, body) = match health() {
        Health::Good => (StatusCode::OK, serde_json::json!({ "health": "good" })),
        Health::Bad(reason) => {
            (StatusCode::SERVICE_UNAVAILABLE, serde_json::json!({ "health": "bad", "reason": reason }))
        }
    };
    (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}
