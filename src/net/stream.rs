//! A connection: TCP or unix socket, with or without TLS.
//!
//! Owns: `Stream`. Called by: sessions' loops. Never: reads ahead.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::{client, server};

use super::tls::{Acceptor, Connector};

/// A connection that was accepted, or opened.
#[derive(Debug)]
pub enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    /// TLS, with us as the server.
    Tls(Box<server::TlsStream<Stream>>),
    /// TLS, with us as the client.
    TlsClient(Box<client::TlsStream<Stream>>),
}

impl Stream {
    /// Shakes hands as the TLS server. Whatever the caller read beyond the command that asked for TLS must have been
    /// thrown away: it came in the clear (RFC 3207 section 6, RFC 9051 section 11.1).
    ///
    /// # Errors
    /// `TimedOut` when the handshake takes longer than `timeout`; `InvalidInput` when the stream already is TLS;
    /// whatever the peer did wrong as `InvalidData`.
    pub async fn start_tls(self, acceptor: &Acceptor, timeout: Duration) -> io::Result<Self> {
        if self.is_tls() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let stream = tokio::time::timeout(timeout, acceptor.accept(self))
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        Ok(Self::Tls(Box::new(stream)))
    }

    /// Shakes hands as the TLS client of the server with this name (or IP address).
    ///
    /// # Errors
    /// As `start_tls`; also when the connector verifies and the server is not who it should be.
    pub async fn connect_tls(self, connector: &Connector, name: &str, timeout: Duration) -> io::Result<Self> {
        if self.is_tls() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let stream = tokio::time::timeout(timeout, connector.connect(self, name))
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        Ok(Self::TlsClient(Box::new(stream)))
    }

    /// Is what is written seen only by the peer?
    #[must_use]
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_) | Self::TlsClient(_))
    }

    /// Protocol version and cipher suite in use, as "TLSv1.3 TLS13_AES_256_GCM_SHA384", for trace headers and logs.
    #[must_use]
    pub fn tls_description(&self) -> Option<String> {
        let connection: &rustls::CommonState = match self {
            Self::Tls(stream) => stream.get_ref().1,
            Self::TlsClient(stream) => stream.get_ref().1,
            Self::Tcp(_) | Self::Unix(_) => return None,
        };
        let tls13 = connection.protocol_version()? == rustls::ProtocolVersion::TLSv1_3;
        // No other is spoken (`Acceptor::from_pem`).
        let version = if tls13 { "TLSv1.3" } else { "TLSv1.2" };
        let suite = connection.negotiated_cipher_suite()?.suite();
        Some(format!("{version} {}", suite.as_str().unwrap_or("unknown")))
    }

    /// Writes what the socket takes at once, for a last word to a peer that is not let in.
    pub(super) fn write_now(&self, bytes: &[u8]) {
        let written = match self {
            Self::Tcp(stream) => stream.try_write(bytes),
            Self::Unix(stream) => stream.try_write(bytes),
            Self::Tls(_) | Self::TlsClient(_) => return,
        };
        // The peer is sent away in any case; when it does not take the reason, the closed connection must do.
        drop(written);
    }
}

impl From<TcpStream> for Stream {
    fn from(stream: TcpStream) -> Self {
        Self::Tcp(stream)
    }
}

impl From<UnixStream> for Stream {
    fn from(stream: UnixStream) -> Self {
        Self::Unix(stream)
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, buf),
            Self::TlsClient(stream) => Pin::new(stream.as_mut()).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, buf),
            Self::TlsClient(stream) => Pin::new(stream.as_mut()).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write_vectored(cx, bufs),
            Self::TlsClient(stream) => Pin::new(stream.as_mut()).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
            Self::TlsClient(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
            Self::TlsClient(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }
}
