"""What Python's requests does by http_proxy: keep-alive, bodies, streaming, errors. Argument: the service's base URL."""

import sys

import requests


def main():
    base = sys.argv[1]
    with requests.Session() as session:
        for _ in range(20):
            assert session.get(base + "/who", timeout=20).text == "app"
        sent = bytes(range(256)) * 4000
        assert session.post(base + "/echo", data=sent, timeout=20).content == sent
        pieces = (bytes([value]) * 10_000 for value in range(50))
        assert session.post(base + "/digest", data=pieces, timeout=20).text == "500000"
        with session.get(base + "/bytes/3000000", stream=True, timeout=20) as answer:
            assert sum(len(chunk) for chunk in answer.iter_content(8192)) == 3_000_000
        assert session.get(base + "/status/404", timeout=20).status_code == 404
        assert session.head(base + "/who", timeout=20).headers["content-length"] == "3"
    print("all answered")


main()
