"""Plaintext sent together with STARTTLS must not be answered inside TLS (CVE-2011-0411 and its kin).

Arguments: host, SMTP port, IMAP port, POP3 port, LDAP port.
"""
import socket, ssl, sys

host, smtp, imap, pop3, ldap = sys.argv[1:]
context = ssl.create_default_context()
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE


def read(sock, until):
    got = b""
    while until not in got:
        part = sock.recv(4096)
        if not part:
            break
        got += part
    return got


def inject(port, greeting, prelude, starttls, accepted, injected, marker):
    """Sends STARTTLS with a command behind it in one packet; inside TLS nothing may have answered that command."""
    with socket.create_connection((host, int(port)), timeout=20) as sock:
        read(sock, greeting)
        if prelude:
            sock.sendall(prelude[0])
            read(sock, prelude[1])
        sock.sendall(starttls + injected)
        answer = read(sock, accepted)
        if accepted not in answer:
            return "refused"
        try:
            with context.wrap_socket(sock) as tls:
                tls.settimeout(2)
                try:
                    said = tls.recv(4096)
                except TimeoutError:
                    said = b""
                assert marker not in said, (port, said)
                return "not answered"
        except (ssl.SSLError, ConnectionError):
            return "closed"


print("smtp", inject(smtp, b"\r\n", (b"EHLO c\r\n", b"\r\n250 "), b"STARTTLS\r\n", b"220 ", b"NOOP\r\n", b"250"))
print("imap", inject(imap, b"\r\n", None, b"a STARTTLS\r\n", b"a OK", b"b NOOP\r\n", b"b OK"))
print("pop3", inject(pop3, b"\r\n", None, b"STLS\r\n", b"+OK", b"CAPA\r\n", b"+OK"))
# LDAP: StartTLS extended request, then an anonymous simple bind in the clear.
start = bytes.fromhex("301d02010177188016") + b"1.3.6.1.4.1.1466.20037"
bind = bytes.fromhex("300c020102600702010304008000")
with socket.create_connection((host, int(ldap)), timeout=20) as sock:
    sock.sendall(start + bind)
    answer = sock.recv(4096)
    assert b"\x0a\x01\x00" in answer or answer == b"" or b"\x0a\x01" in answer, answer
    if b"\x0a\x01\x00" in answer:
        try:
            with context.wrap_socket(sock) as tls:
                tls.settimeout(2)
                try:
                    said = tls.recv(4096)
                except TimeoutError:
                    said = b""
                assert b"\x61" not in said, said
                print("ldap not answered")
        except (ssl.SSLError, ConnectionError):
            print("ldap closed")
    else:
        print("ldap refused")
