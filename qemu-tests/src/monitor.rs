//! QEMU's own control line (QMP).
//!
//! Owns: the connection. Called by: `guest`, suites. Spec: QEMU's "QMP protocol specification".

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::{Value, json};

use crate::wait_for;

/// One guest's monitor.
#[derive(Debug)]
pub struct Monitor {
    stream: BufReader<UnixStream>,
}

impl Monitor {
    /// Connects as soon as QEMU listens.
    #[must_use]
    pub fn connect(path: &Path) -> Self {
        let stream = wait_for("QEMU's monitor", || UnixStream::connect(path).ok(), String::new);
        let mut monitor = Self { stream: BufReader::new(stream) };
        monitor.line();
        monitor.execute("qmp_capabilities", &json!({}));
        monitor
    }

    /// Executes a command; gives what it returns. Events that come in between are passed over.
    pub fn execute(&mut self, command: &str, arguments: &Value) -> Value {
        let request = json!({ "execute": command, "arguments": arguments });
        writeln!(self.stream.get_mut(), "{request}").unwrap();
        loop {
            let answer = self.line();
            assert!(answer.get("error").is_none(), "{command}: {answer}");
            if let Some(returned) = answer.get("return") {
                return returned.clone();
            }
        }
    }

    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("QMP: {error}: {line:?}"))
    }
}
