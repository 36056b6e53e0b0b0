"""TLS in front of a server that speaks plain text.

Usage: python tls_front.py ADDRESS FOLDER

Writes the authority that signed its certificate to FOLDER/authority.pem, and that of somebody else to FOLDER/other.pem. Prints `front ADDRESS`
and `ready`, and serves until its standard input ends.
"""

import asyncio
import os
import pathlib
import ssl
import sys
import threading

import trustme


async def pass_on(reader, writer):
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    except (ConnectionError, ssl.SSLError):
        pass
    finally:
        writer.close()


async def main():
    (host, port), folder = sys.argv[1].rsplit(":", 1), pathlib.Path(sys.argv[2])
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "authority.pem")
    trustme.CA().cert_pem.write_to_path(folder / "other.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)

    async def front(reader, writer):
        back = await asyncio.open_connection(host, int(port))
        await asyncio.gather(pass_on(reader, back[1]), pass_on(back[0], writer))

    server = await asyncio.start_server(front, "127.0.0.1", 0, ssl=context)
    print("front %s:%d\nready" % server.sockets[0].getsockname(), flush=True)
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    await server.serve_forever()


asyncio.run(main())
