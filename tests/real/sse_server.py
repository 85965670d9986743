"""A server of events (text/event-stream): `/events/N/MS` sends N of them, one each MS milliseconds; 0 = without end. Says on standard
output when a client has gone. Arguments: address and port."""

import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        _, count, pause = self.path.strip("/").split("/")
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("cache-control", "no-cache")
        self.send_header("connection", "close")
        self.end_headers()
        index = 0
        try:
            while index < int(count) or int(count) == 0:
                self.wfile.write(f"id: {index}\nevent: tick\ndata: {time.time()}\n\n".encode())
                index += 1
                time.sleep(int(pause) / 1000)
        except OSError:
            print("a client has gone", flush=True)
        self.close_connection = True

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 128


server = Server((sys.argv[1], int(sys.argv[2])), Handler)
print("listening", flush=True)
server.serve_forever()
