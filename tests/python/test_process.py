"""What the process does around FerroMQ: Ctrl-C, fork, exit, import. Each in a process of its own."""

import os
import pathlib
import signal
import subprocess
import sys
import textwrap

import pytest

WAITS = {
    "sync get": "messages.get()",
    "sync iteration": "list(messages)",
    "sync take": "list(messages.take(10, seconds=60))",
    "sync batch": "messages.batch(max=10, within=60)",
    "sync request": "client.request('nobody/answers', timeout=60)",
    "events": "client.events().get()",
    "settled": "lazy(broker, client)",
}


@pytest.mark.parametrize("wait", WAITS)
@pytest.mark.skipif(sys.platform == "win32", reason="needs signals by process id")
def test_ctrl_c_ends_a_wait(wait):
    program = f"""
        import ferromq

        def lazy(broker, client):
            subscription = client.subscribe("lazy", qos=1, ack="manual")
            broker.publish("lazy", qos=1)
            broker.wait_settled()

        with ferromq.Broker() as broker, ferromq.SyncClient(broker.url) as client:
            messages = client.subscribe("x")
            try:
                print("waiting", flush=True)
                {WAITS[wait]}
            except KeyboardInterrupt:
                print("interrupted", flush=True)
    """
    assert interrupt(program) == "interrupted\n"


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals by process id")
def test_ctrl_c_ends_asyncio_run(run_python):
    # The signal is raised by the loop itself, once main waits. One from outside can come after Python's last look at
    # its signals and before epoll_wait, and asyncio.run (3.11) then hears of it only at the loop's next event.
    program = """
        import asyncio, signal
        import ferromq

        async def main():
            async with ferromq.Broker() as broker, ferromq.Client(broker.url) as client:
                async with client.subscribe("x") as messages:
                    asyncio.get_running_loop().call_soon(signal.raise_signal, signal.SIGINT)
                    async for _ in messages:
                        pass

        try:
            asyncio.run(main())
        except KeyboardInterrupt:
            print("interrupted", flush=True)
    """
    assert run_python(program) == "interrupted\n"


def interrupt(program):
    """Start it, send SIGINT when it says "waiting", and give the rest of what it writes."""
    command = [sys.executable, "-X", "dev", "-c", textwrap.dedent(program)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:  # noqa: S603
        try:
            assert process.stdout.readline() == "waiting\n"
            os.kill(process.pid, signal.SIGINT)
            output, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 0, errors
    return output


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_is_told_and_its_parent_goes_on(run_python):
    output = run_python(
        """
        import os, sys, ferromq

        with ferromq.Broker() as broker, ferromq.SyncClient(broker.url) as client:
            messages = client.subscribe("x")
            sys.stdout.flush()
            child = os.fork()
            if child == 0:
                status = 0
                for attempt in (
                    lambda: client.publish("x", b"1", qos=1),
                    lambda: client.subscribe("y"),
                    lambda: messages.get(timeout=1),
                    lambda: broker.clients,
                    lambda: broker.stop(),
                    lambda: client.disconnect(),
                ):
                    try:
                        attempt()
                        status = 1
                    except ferromq.Forked as error:
                        if "spawn" not in str(error):
                            status = 2
                # Dropping what was inherited must not hang either.
                del client, messages, broker
                os._exit(status)
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
            client.publish("x", b"parent", qos=1)
            print(messages.get(timeout=20).text())
        """
    )
    assert output == "0\nparent\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_may_make_its_own(run_python):
    output = run_python(
        """
        import os, sys, ferromq

        with ferromq.Broker() as broker, ferromq.SyncClient(broker.url) as client:
            client.publish("x", qos=1)
            url = broker.url
            sys.stdout.flush()
            child = os.fork()
            if child == 0:
                with ferromq.SyncClient(url) as mine:
                    mine.publish("x", b"from the child", retain=True, qos=1)
                os._exit(0)
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
            print(broker.retained.get("x").decode())
        """
    )
    assert output == "0\nfrom the child\n"


@pytest.mark.parametrize("how", ["falls off the end", "sys.exit", "exception"])
def test_the_interpreter_ends_at_once_with_everything_alive(run_python, how):
    output = run_python(
        """
        import asyncio, sys, threading, ferromq

        broker = ferromq.Broker().start()
        sync = ferromq.SyncClient(broker.url).connect()
        subscription = sync.subscribe("x")
        threading.Thread(target=lambda: subscription.get(), daemon=True).start()

        loop = asyncio.new_event_loop()
        client = ferromq.Client(broker.url)
        loop.run_until_complete(client.connect())
        waiting = loop.create_task(anext(loop.run_until_complete(client.subscribe("x").__aenter__())))
        publication = client_publish = None
        async def begin():
            return client.publish("x", b"1", qos=1)
        publication = loop.run_until_complete(begin())
        waiting.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        print("end")
        if sys.argv[1] == "sys.exit":
            sys.exit(3)
        if sys.argv[1] == "exception":
            raise ValueError
        """,
        how,
        code={"falls off the end": 0, "sys.exit": 3, "exception": 1}[how],
    )
    assert output == "end\n"


def test_a_hook_in_progress_does_not_hold_up_the_end(run_python):
    output = run_python(
        """
        import socket, threading, ferromq

        called = threading.Event()
        broker = ferromq.Broker()

        @broker.on_auth
        def judge(info):
            called.set()
            threading.Event().wait()

        broker.start()
        connection = socket.create_connection(("127.0.0.1", broker.port))
        connection.sendall(bytes.fromhex("100d00044d5154540402003c000161"))
        called.wait()
        connection.close()
        print("end")
        """
    )
    assert output == "end\n"


def test_importing_is_cheap_and_brings_no_asyncio(run_python):
    program = """
        import sys
        before = set(sys.modules)
        import ferromq
        print(*sorted(name for name in set(sys.modules) - before if not name.startswith("ferromq")))
    """
    # How long it takes is shown by `make bench-python`.
    assert not {"asyncio", "dataclasses", "typing", "json", "inspect"} & set(run_python(program).split())


def test_the_number_of_threads_is_set_by_the_environment(run_python, monkeypatch):
    program = """
        import ferromq
        with ferromq.Broker() as broker, ferromq.SyncClient(broker.url) as client:
            client.publish("x", qos=1)
            names = []
            import os, pathlib
            for task in pathlib.Path("/proc/self/task").glob("*/comm"):
                names.append(task.read_text().strip())
            print(sum(name.startswith("ferromq-io") for name in names))
    """
    if not pathlib.Path("/proc/self/task").is_dir():
        pytest.skip("needs /proc to count threads")
    monkeypatch.setenv("FERROMQ_THREADS", "3")
    assert run_python(program) == "3\n"
    monkeypatch.setenv("FERROMQ_THREADS", "many")
    with pytest.raises(AssertionError, match="FERROMQ_THREADS must be a number"):
        run_python(program)
