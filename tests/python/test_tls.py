"""TLS from Python: listeners, clients, certificates made for tests, and what refuses them."""

import ssl
import subprocess
import sys
from pathlib import Path

import ferromq
import paho.mqtt.client as paho
import pytest
from ferromq.testing import Clients
from ferromq.testing._kit import Settings


@pytest.mark.parametrize(("path", "scheme"), [(None, "mqtts://"), ("/mqtt", "wss://")])
async def test_a_certificate_made_for_tests_is_all_it_takes(path: str | None, scheme: str) -> None:
    tls = ferromq.Tls(path=path)
    async with ferromq.Broker(listeners=[tls]) as broker:
        assert broker.url.startswith(scheme)
        assert broker.certificate == tls.certificate
        believing = ferromq.ClientTls(ca=tls.certificate)
        async with ferromq.Client(broker.url, tls=believing) as client, client.subscribe("t", qos=1) as messages:
            await client.publish("t", b"x" * 100_000, qos=1)
            assert len((await anext(messages)).payload) == 100_000


def test_a_blocking_client_too() -> None:
    tls = ferromq.Tls()
    with (
        ferromq.Broker(listeners=[tls, "tcp://127.0.0.1:0"]) as broker,
        ferromq.SyncClient(broker.urls[0], tls=ferromq.ClientTls(ca=tls.certificate.encode())) as client,
    ):
        assert broker.url.startswith("mqtt://"), "clients without TLS are asked first"
        client.publish("t", b"x", qos=1)


async def test_who_is_not_believed_is_refused_with_advice() -> None:
    with ferromq.Broker(listeners=[ferromq.Tls()]) as broker:
        with pytest.raises(ferromq.ConnectError, match="CA's certificate with ca"):
            async with ferromq.Client(broker.url, tls=ferromq.ClientTls(ca=ferromq.Tls().certificate)):
                pass
        async with ferromq.Client(broker.url, tls=ferromq.ClientTls(verify=False)) as client:
            assert client.connected


async def test_clients_show_their_certificates(tmp_path: Path) -> None:
    own = make_identity(tmp_path, "-addext", "basicConstraints=critical,CA:FALSE")
    server = ferromq.Tls(client_ca=own["cert"])
    with ferromq.Broker(listeners=[server]) as broker:
        with pytest.raises(ferromq.ConnectError, match="wants a certificate"):
            async with ferromq.Client(broker.url, tls=ferromq.ClientTls(ca=server.certificate), reconnect=False):
                pass
        shown = ferromq.ClientTls(ca=server.certificate, cert=own["cert"], key=Path(own["key"]))
        async with ferromq.Client(broker.url, tls=shown) as client:
            await client.publish("t", b"1", qos=1)


def make_identity(folder: Path, *more: str) -> dict[str, str]:
    """As an operator makes one: it is its own authority, and says so unless it is told not to."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-keyout", str(key), "-out", str(cert), "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", *more]
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603
    return {"cert": str(cert), "key": str(key)}


def test_files_serve_the_standard_librarys_ssl_and_paho(tmp_path: Path) -> None:
    own = make_identity(tmp_path)
    with ferromq.Broker(listeners=[ferromq.Tls(cert=own["cert"], key=own["key"])]) as broker:
        client = paho.Client(paho.CallbackAPIVersion.VERSION2)
        context = ssl.create_default_context(cafile=own["cert"])
        client.tls_set_context(context)
        client.connect("localhost", broker.port)
        client.loop_start()
        try:
            message = client.publish("t", b"1", qos=1)
            message.wait_for_publish(timeout=10)
            assert message.is_published()
        finally:
            client.disconnect()
            client.loop_stop()


async def test_a_certificate_that_is_its_own_authority_is_still_for_its_name_alone(tmp_path: Path) -> None:
    own = make_identity(tmp_path)
    with ferromq.Broker(listeners=[ferromq.Tls(cert=own["cert"], key=own["key"])]) as broker:
        for name, is_good in [("localhost", True), ("example.com", False)]:
            tls = ferromq.ClientTls(ca=own["cert"], server_name=name)
            client = ferromq.Client(broker.url, tls=tls, reconnect=False)
            if is_good:
                async with client:
                    continue
            with pytest.raises(ferromq.ConnectError, match="another name"):
                async with client:
                    pass


async def test_a_configuration_file_names_them(tmp_path: Path) -> None:
    own = make_identity(tmp_path)
    file = tmp_path / "broker.toml"
    file.write_text(
        f'[[listeners]]\nurl = "tls://127.0.0.1:0"\ncert = "{own["cert"]}"\nkey = "{own["key"]}"\n', encoding="utf-8"
    )
    async with (
        ferromq.Broker(config=file) as broker,
        ferromq.Client(broker.url.replace("127.0.0.1", "localhost"), tls=ferromq.ClientTls(ca=own["cert"])) as client,
    ):
        await client.publish("t", b"1", qos=1)


def test_the_command_line_speaks_it(tmp_path: Path) -> None:
    own = make_identity(tmp_path)
    with ferromq.Broker(listeners=[ferromq.Tls(cert=own["cert"], key=own["key"])]) as broker:
        command = [sys.executable, "-m", "ferromq", "pub", "-h", "localhost", "-p", str(broker.port), "-t", "t"]
        command += ["-m", "1", "-r", "-q", "1", "--cafile", own["cert"]]
        subprocess.run(command, check=True, timeout=60)  # noqa: S603
        assert broker.retained.get("t") == b"1"


@pytest.mark.parametrize("listener", ["tls", "wss"])
def test_fixtures_know_it(listener: str) -> None:
    settings = Settings(listeners=[listener])
    with settings.new_broker() as broker:
        clients = Clients(broker, settings)
        assert clients.sync(broker.url).connected
        clients.close()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"listeners": ["tls://127.0.0.1:0"]}, "certificate"),
        ({"listeners": [{"url": "tcp://127.0.0.1:0", "cert": "c", "key": "k"}]}, "no use without TLS"),
        ({"listeners": [{"url": "tls://127.0.0.1:0", "cert": "c"}]}, "key is missing"),
        ({"listeners": [{"url": "tls://127.0.0.1:0", "cert": "/nowhere.pem", "key": "k"}]}, "/nowhere.pem"),
    ],
)
def test_what_is_missing_is_named(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(ferromq.FerroMQError, match=words):
        ferromq.Broker(**arguments).start()  # type: ignore[arg-type]


def test_arguments_that_do_not_go_together() -> None:
    with pytest.raises(ferromq.InvalidArgument, match="come together"):
        ferromq.Tls(cert="c")
    with pytest.raises(ferromq.InvalidArgument, match="come together"):
        ferromq.ClientTls(key="k")
    with pytest.raises(ferromq.InvalidArgument, match="port"):
        ferromq.Tls("localhost:x")
    assert "PRIVATE" not in repr(ferromq.Tls())


async def test_the_system_is_believed_by_default() -> None:
    with (
        ferromq.Broker(listeners=[ferromq.Tls()]) as broker,
        pytest.raises(ferromq.ConnectError, match=r"CA|authorities"),
    ):
        async with ferromq.Client(broker.url):
            pass
