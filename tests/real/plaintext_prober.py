"""Asks in plain text again and again, without rest, and prints when and whether an answer came. Arguments: address and port."""

import socket
import sys
import time


def ask(address):
    with socket.create_connection(address, 0.5) as connection:
        connection.sendall(b"GET /index.html HTTP/1.0\r\nhost: web\r\n\r\n")
        return b" 200 " in connection.recv(100)


def main():
    address = sys.argv[1], int(sys.argv[2])
    while True:
        began = int(time.time() * 1000)
        try:
            passed = ask(address)
        except OSError:
            passed = False
        print(began, "passed" if passed else "refused", flush=True)
        time.sleep(0.01)


main()
