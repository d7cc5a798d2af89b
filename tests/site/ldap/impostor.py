"""A directory that is none: it answers StartTLS as a real one does, and then as the file `mode` says.

Arguments: address, port, the file `mode`, certificate, key. Prints a line for every TLS handshake that a client made.
"""
import socket, ssl, sys, threading, time

ip, port, mode_file, certificate, key = sys.argv[1:]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)


def ber(tag, content):
    length = len(content)
    if length < 128:
        return bytes([tag, length]) + content
    octets = length.to_bytes(4, "big")
    return bytes([tag, 0x84]) + octets + content


def result(tag, number, code=0):
    return ber(0x30, ber(2, number.to_bytes(2, "big")) + ber(tag, b"\x0a\x01" + bytes([code]) + ber(4, b"") + ber(4, b"")))


def entry(number, attributes=b""):
    return ber(0x30, ber(2, number.to_bytes(2, "big")) + ber(0x64, ber(4, b"uid=u1,o=demo") + ber(0x30, attributes)))


def requests(sock):
    """Numbers and tags of requests, as well framed as ldap3 sends them."""
    data = b""
    while True:
        part = sock.recv(65536)
        if not part:
            return
        data += part
        while len(data) > 2:
            count = data[1] & 0x7f if data[1] & 0x80 else 0
            length = int.from_bytes(data[2 : 2 + count], "big") if count else data[1]
            whole = 2 + count + length
            if len(data) < whole:
                break
            message, data = data[2 + count : whole], data[whole:]
            number_len = message[1]
            yield int.from_bytes(message[2 : 2 + number_len], "big"), message[2 + number_len]


def flood(sock, octets, times):
    for _ in range(times):
        sock.sendall(octets)


def deep(number):
    inside = ber(4, b"")
    for _ in range(10_000):
        inside = ber(0x30, inside)
    return ber(0x30, ber(2, number.to_bytes(2, "big")) + ber(0x64, inside))


def mode():
    return open(mode_file).read()


def answer(sock, mode, number, tag):
    if tag == 0x60:
        sock.sendall(result(0x61, number))
    elif tag != 0x63 or mode in ("good", "inject"):
        # Nobody is here.
        sock.sendall(result(0x65, number))
    elif mode == "indefinite":
        sock.sendall(b"\x30\x80\x02\x01" + bytes([number & 127]) + b"\x64\x80" + b"\x04\x01x" * 1000)
    elif mode == "huge":
        flood(sock, b"\x30\x84\xff\xff\xff\xff\x02\x01\x01\x64\x84\xff\xff\xff\xf0", 1)
        flood(sock, bytes(1 << 20), 1024)
    elif mode == "deep":
        sock.sendall(deep(number))
    elif mode == "many":
        sock.sendall(ber(0x30, ber(2, number.to_bytes(2, "big")) + ber(0x64, b"\x05\x00" * 400_000)))
    elif mode == "endless":
        flood(sock, entry(number, ber(0x30, ber(4, b"cn") + ber(0x31, ber(4, b"x" * 60)) * 1)) * 5000, 1000)
    elif mode == "strangers":
        # Answers to what nobody asked, and never an end.
        for other in range(1000, 60_000):
            sock.sendall(entry(other) * 100)
    elif mode == "wrong":
        sock.sendall(result(0x61, number))
    elif mode == "malformed":
        sock.sendall(ber(0x30, ber(2, number.to_bytes(2, "big")) + ber(0x65, b"") + ber(0xa0, ber(0x30, ber(4, b"1.1") + ber(2, b"x")))))
    elif mode == "drip":
        for octet in entry(number) * 100:
            sock.sendall(bytes([octet]))
            time.sleep(0.1)


def serve(sock):
    with sock:
        for number, tag in requests(sock):
            if tag == 0x77:
                break
        started = ber(0x30, ber(2, bytes([number])) + ber(0x78, b"\x0a\x01\x00" + ber(4, b"") + ber(4, b"")))
        # In one packet: what a man in the middle would like to be taken for the server's answers.
        sock.sendall(started + (result(0x61, 1) + result(0x65, 2) if mode() == "inject" else b""))
        with context.wrap_socket(sock, server_side=True) as tls:
            print("handshake", mode(), flush=True)
            for number, tag in requests(tls):
                answer(tls, mode(), number, tag)


def serve_to_the_end(sock):
    try:
        serve(sock)
    except (OSError, ssl.SSLError):
        pass


with socket.create_server((ip, int(port))) as listener:
    print("ready", flush=True)
    while True:
        sock, _ = listener.accept()
        threading.Thread(target=serve_to_the_end, args=(sock,), daemon=True).start()
