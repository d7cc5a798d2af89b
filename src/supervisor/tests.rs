//! Backoff, what a reload changes, certificates, merged metrics.
