//! `ferromq pub`, `sub`, `rr` and `broker` as a shell runs them: against a broker in this process, or a server that
//! follows a script.
#![cfg(all(unix, feature = "cli"))]
#![allow(clippy::unwrap_used)] // what fails here fails the test

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Arc,
        mpsc::{Receiver, sync_channel},
    },
    thread,
    time::Duration,
};

use ferromq::{
    auth::{Access, Authorizer, ConnectInfo, Permit, Users},
    broker::Hooks,
    codec::{ConnAck, Decoder, Limits, Packet, Properties, ReasonCode, SubAck, Version},
    config::ListenerUrl,
    server::Broker,
};

/// A session hands over what was printed, and only that: the rest is there for the next run.
#[test]
fn a_kept_session_loses_nothing_that_was_not_printed() {
    let broker = broker(Hooks::default());
    for (qos, id) in [("1", "keeps1"), ("2", "keeps2")] {
        let session = ["-c", "-i", id, "-q", qos, "-t", "n"];
        assert_eq!(ferromq("sub", &broker, &[&session[..], &["-E"]].concat()).finish().code, Some(0));
        let mut lines = ferromq("pub", &broker, &["-t", "n", "-q", "2", "-l"]);
        lines.write(b"n1\nn2\nn3\nn4\nn5\n");
        assert_eq!(lines.finish().code, Some(0));
        for (count, printed) in [("2", "n1\nn2\n"), ("1", "n3\n"), ("2", "n4\nn5\n")] {
            let run = ferromq("sub", &broker, &[&session[..], &["-C", count]].concat()).finish();
            assert_eq!((run.out.as_str(), run.code), (printed, Some(0)), "QoS {qos}: {}", run.err);
        }
        let run = ferromq("sub", &broker, &[&session[..], &["-W", "0.3"]].concat()).finish();
        assert_eq!((run.out.as_str(), run.code), ("", Some(27)), "QoS {qos}: {}", run.err);
        assert_eq!(run.err, "ferromq: timed out\n");
    }
}

#[test]
fn what_was_printed_when_the_signal_came_is_done_with() {
    let broker = broker(Hooks::default());
    let session = ["-c", "-i", "signalled", "-q", "1", "-t", "n"];
    let mut run = ferromq("sub", &broker, &session);
    publish_until_received(&broker, "n", &mut run);
    run.signal("TERM");
    assert_eq!(run.finish().code, Some(0));
    ferromq("pub", &broker, &["-t", "n", "-q", "1", "-m", "next"]).succeed();
    assert_eq!(ferromq("sub", &broker, &[&session[..], &["-C", "1"]].concat()).succeed(), "next\n");
}

#[test]
fn a_session_with_an_expiry_stays_subscribed_without_c() {
    let broker = broker(Hooks::default());
    ferromq("sub", &broker, &["-x", "30", "-i", "expiring", "-q", "1", "-t", "x", "-E"]).succeed();
    ferromq("pub", &broker, &["-t", "x", "-q", "1", "-m", "waited"]).succeed();
    let resumed = ["-c", "-x", "30", "-i", "expiring", "-q", "1", "-t", "other", "-C", "1"];
    assert_eq!(ferromq("sub", &broker, &resumed).succeed(), "waited\n");
}

#[test]
fn a_signal_ends_whoever_reads_standard_input() {
    let broker = broker(Hooks::default());
    for (command, arguments, code) in [
        ("pub", &["-t", "a", "-s"][..], 128 + 15),
        ("pub", &["-t", "a", "-f", "/dev/stdin"], 128 + 15),
        ("rr", &["-t", "a", "-s"], 0),
    ] {
        let mut run = ferromq(command, &broker, arguments);
        // More than a pipe holds: when all of it is taken, it is being read, and the signal is waited for.
        run.write_open(&vec![b'x'; 1 << 20]);
        run.signal("TERM");
        assert_eq!(run.finish_open().code, Some(code), "{command}");
    }
}

#[test]
fn pub_ends_with_the_connection_and_says_so() {
    let (server, port) = scripted();
    let run = Run::start("pub", &["-h", "127.0.0.1", "-p", &port, "-V", "311", "-q", "1", "-t", "a", "-m", "x"]);
    let mut peer = Peer::accept(&server);
    peer.accept_connect();
    assert!(matches!(peer.packet(), Packet::Publish(_)));
    drop(peer);
    let run = run.finish();
    assert_eq!(run.code, Some(7), "{}", run.err);
    assert!(run.err.contains("closed the connection"), "{}", run.err);

    // It does not take another line to notice.
    let run = Run::start("pub", &["-h", "127.0.0.1", "-p", &port, "-V", "311", "-t", "a", "-l"]);
    Peer::accept(&server).accept_connect();
    assert_eq!(run.finish_open().code, Some(7));
}

#[test]
fn sub_tells_of_a_lost_connection_and_of_its_return() {
    let (server, port) = scripted();
    let address = ["-h", "127.0.0.1", "-p", &port, "-V", "311", "-t", "a"];
    for quiet in [false, true] {
        let mut run = Run::start("sub", &[&address[..], if quiet { &["--quiet"] } else { &[] }].concat());
        for _ in 0..2 {
            let mut peer = Peer::accept(&server);
            peer.accept_connect();
            peer.accept_subscribe();
        }
        let mut peer = Peer::accept(&server);
        peer.accept_connect();
        peer.accept_subscribe();
        if !quiet {
            run.expect_error("closed the connection; connecting again");
            run.expect_error(&format!("connected to mqtt://127.0.0.1:{port} again"));
        }
        run.signal("INT");
        let run = run.finish();
        assert_eq!(run.code, Some(0), "{}", run.err);
        assert!(!quiet || run.err.is_empty(), "{}", run.err);
    }
}

#[test]
fn values_may_begin_with_a_hyphen() {
    let broker = broker(Hooks::default());
    let mut run =
        ferromq("sub", &broker, &["-x", "-1", "-i", "-i", "-P", "-secret", "-u", "-u", "-t", "-x", "-C", "1", "-d"]);
    run.expect_error(" subscribed ");
    let message = ["-t", "-x", "-m", "-m", "-D", "publish", "user-property", "offset", "-5", "-q", "1"];
    ferromq("pub", &broker, &message).succeed();
    assert_eq!(run.succeed(), "-m\n");
}

#[test]
fn a_reader_that_has_had_enough_is_no_failure() {
    let broker = broker(Hooks::default());
    let mut run = ferromq("sub", &broker, &["-t", "p", "-q", "1"]);
    publish_until_received(&broker, "p", &mut run);
    run.close_output();
    // The first may still go into the pipe's buffer.
    while run.child.try_wait().unwrap().is_none() {
        ferromq("pub", &broker, &["-t", "p", "-q", "1", "-m", "x"]).succeed();
    }
    let run = run.finish();
    assert_eq!((run.code, run.err.as_str()), (Some(0), ""));
}

#[test]
fn refusals_and_their_codes_are_those_of_mosquitto() {
    let users = Users::new([("dev".to_owned(), "secret".to_owned())], false);
    let broker = broker(Hooks { authenticator: Some(Arc::new(users)), ..Hooks::default() });
    for (version, anonymous, wrong) in [("311", 5, 4), ("31", 5, 4), ("5", 135, 134)] {
        for command in [&["pub", "-m", "x"][..], &["sub"]] {
            let arguments = [&command[1..], &["-t", "a", "-V", version]].concat();
            assert_eq!(ferromq(command[0], &broker, &arguments).finish().code, Some(anonymous));
            let arguments = [&arguments[..], &["-u", "dev", "-P", "no"]].concat();
            let run = ferromq(command[0], &broker, &arguments).finish();
            assert_eq!(run.code, Some(wrong));
            assert!(run.err.contains("refused the connection"), "{}", run.err);
            let run = ferromq(command[0], &broker, &[&arguments[..], &["--quiet"]].concat()).finish();
            assert_eq!((run.code, run.err.as_str()), (Some(wrong), ""));
        }
    }
}

#[test]
fn a_filter_that_is_refused_beside_others_is_told() {
    #[derive(Debug)]
    struct NotSecret;
    impl Authorizer for NotSecret {
        fn authorize(&self, _: &ConnectInfo, access: Access<'_>) -> Permit {
            Permit::from(!matches!(access, Access::Subscribe { filter: "secret", .. }))
        }
    }
    let broker = broker(Hooks { authorizer: Some(Arc::new(NotSecret)), ..Hooks::default() });
    let run = ferromq("sub", &broker, &["-V", "311", "-t", "open", "-t", "secret", "-E"]).finish();
    assert_eq!(run.code, Some(0));
    assert!(run.err.contains("refused the subscription to \"secret\""), "{}", run.err);
    assert!(!run.err.contains("\"open\""), "{}", run.err);
}

#[test]
fn mqtt_3_1_gets_an_identifier_made_up() {
    let broker = broker(Hooks::default());
    ferromq("sub", &broker, &["-V", "mqttv31", "-t", "a", "-E"]).succeed();
    let run = ferromq("sub", &broker, &["-V", "mqttv31", "-c", "-t", "a", "-E"]).finish();
    assert_eq!(run.code, Some(2));
    assert!(run.err.contains("-i"), "{}", run.err);
}

#[test]
fn debugging_shows_the_packets_and_the_first_events() {
    let broker = broker(Hooks::default());
    let run = ferromq("pub", &broker, &["-d", "-t", "a", "-m", "xyz", "-q", "2", "-r", "-i", "me"]).finish();
    assert_eq!(run.code, Some(0));
    let mut rest = run.err.as_str();
    for told in [
        " connecting ",
        "sending CONNECT (me, clean true, keep-alive 60 s)",
        "received CONNACK (success 0x00, session present false)",
        " connected ",
        "sending PUBLISH (d0, q2, r1, m1, \"a\", 3 bytes)",
        "received PUBREC (m1, ",
        "sending PUBREL (m1, ",
        "received PUBCOMP (m1, ",
        "sending DISCONNECT (",
    ] {
        let at = rest.find(told).unwrap_or_else(|| panic!("{told:?} is not in its place in\n{}", run.err));
        rest = &rest[at..];
    }
}

#[test]
fn arguments_that_make_no_sense_are_refused_by_their_names() {
    let long = "a".repeat(70_000);
    for (arguments, words) in [
        (&["sub", "-t", "a", "-C", "0"][..], "--count"),
        (&["sub", "-t", "a", "-W", "0"], "--timeout"),
        (&["pub", "-t", "a", "-n", "--repeat", "0"], "--repeat"),
        (&["rr", "-t", "a", "-n", "-C", "0"], "--count"),
        (&["pub", "-n", "-L", "mqtt://h/x", "--tls"], "need mqtts://"),
        (&["sub", "-L", "bad://h/x"], "scheme is not known"),
        (&["sub", "-L", "mqtt://h"], "no topic"),
        (&["rr", "-t", "a", "-n", "-e", "resp/#"], "-e resp/#"),
        (&["pub", "-t", "a", "-n", "-u", &long], "-u: "),
        (&["sub", "-t", "a", "--will-topic", "w/#"], "--will-topic w/#"),
        (&["pub", "-t", "a", "-n", "-D", "publish", "receive-maximum", "1"], "-D publish receive-maximum"),
        (&["pub", "-t", "a", "-n", "-D", "puback", "x", "1"], "-D puback"),
        (&["sub", "-t", "a", "-T", "x/#/y"], "-T x/#/y"),
        (&["sub", "-t", "a", "-F", "\\x"], "\\x is no escape"),
        (&["sub", "-t", "a", "-F", "%k"], "%k is no field"),
        (&["pub", "-t", "a", "-n", "-h", "127.0.0.1:1883"], "name the port with -p"),
        (&["broker", "--shards", "65"], "0 to 64"),
    ] {
        let run = Run::start(arguments[0], &arguments[1..]).finish();
        assert_eq!(run.code, Some(2), "{arguments:?}: {}", run.err);
        assert!(run.err.contains(words), "{words:?} is not in {}", run.err);
    }
    let run = Run::start("pub", &["--quiet", "-t", "a/#", "-n"]).finish();
    assert_eq!((run.code, run.err.as_str()), (Some(2), ""));
}

#[test]
fn an_ipv6_host_may_have_its_brackets() {
    let Ok(broker) = Broker::builder().listen("tcp://[::1]:0".parse::<ListenerUrl>().unwrap()).start() else { return };
    let port = broker.listeners()[0].to_string().rsplit_once(':').unwrap().1.to_owned();
    for host in ["::1", "[::1]"] {
        Run::start("pub", &["-h", host, "-p", &port, "-t", "a", "-n", "-q", "1"]).succeed();
    }
}

#[test]
fn messages_are_printed_as_the_format_says() {
    let broker = broker(Hooks::default());
    let print = |message: &[&str], printer: &[&str]| {
        ferromq("pub", &broker, &[&["-t", "f/g", "-r", "-q", "1"], message].concat()).succeed();
        ferromq("sub", &broker, &[&["-t", "f/g", "-q", "1", "-C", "1"], printer].concat()).succeed()
    };
    assert_eq!(print(&["-m", "ab"], &["-F", "%X|%x|%05l|%-5t|%.1t|%m|%A|@@"]), "6162|6162|00002|f/g  |f|1||@\n");
    assert_eq!(print(&["-m", "ab"], &["-v", "-F", "<%p>"]), "<ab>\n");
    assert_eq!(print(&["-m", "ab"], &["-v"]), "f/g ab\n");
    let year = print(&["-m", "ab"], &["-F", "@Y"]);
    assert!(year.trim().parse::<u32>().is_ok_and(|year| year >= 2024), "{year}");
    let json = r#"{"b":1,"a":12345678901234567890123,"f":1.10}"#;
    let printed = print(&["-m", json], &["-F", "%J"]);
    assert!(printed.contains(&format!(r#""payload":{json}"#)), "{printed}");
    let text = print(&["-m", "x", "-D", "publish", "correlation-data", "abcd"], &["--json"]);
    assert!(text.contains(r#""correlation_data":"abcd""#), "{text}");
    // Empty payloads clear what is retained, so this one is live.
    let mut run = ferromq("sub", &broker, &["-t", "empty", "-v", "-C", "1", "-d"]);
    run.expect_error(" subscribed ");
    ferromq("pub", &broker, &["-t", "empty", "-n"]).succeed();
    assert_eq!(run.succeed(), "empty (null)\n");
}

#[test]
fn a_payload_that_is_no_json_is_told_and_the_next_printed() {
    let broker = broker(Hooks::default());
    let mut run = ferromq("sub", &broker, &["-t", "j", "-F", "%J", "-C", "2", "-q", "1", "-d"]);
    run.expect_error(" subscribed ");
    let mut lines = ferromq("pub", &broker, &["-t", "j", "-q", "1", "-l"]);
    lines.write(b"no json\n[1]\n");
    lines.finish();
    let run = run.finish();
    assert_eq!(run.code, Some(0));
    assert!(run.err.contains("the payload on \"j\" is no JSON"), "{}", run.err);
    assert!(run.out.lines().count() == 1 && run.out.contains(r#""payload":[1]"#), "{}", run.out);
}

#[test]
fn payloads_are_bytes_and_standard_input_can_be_repeated() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
    let broker = broker(Hooks::default());
    let mut run = ferromq("sub", &broker, &["-t", "b", "-F", "%x", "-C", "3", "-q", "1", "-d"]);
    run.expect_error(" subscribed ");
    let mut command = command("pub", &address(&broker));
    command.args(["-t", "b", "-q", "1", "-m"]).arg(OsStr::from_bytes(b"a\xff"));
    Run::spawn(command).succeed();
    let mut twice = ferromq("pub", &broker, &["-t", "b", "-q", "1", "-s", "--repeat", "2"]);
    twice.write(b"z");
    assert_eq!(twice.finish().code, Some(0));
    assert_eq!(run.succeed(), "61ff\n7a\n7a\n");
}

#[test]
fn a_session_can_be_given_another_expiry_when_it_is_left() {
    let broker = broker(Hooks::default());
    let session = ["-i", "leaver", "-q", "1", "-t", "d", "-E", "-x", "100"];
    ferromq("sub", &broker, &[&session[..], &["-D", "disconnect", "session-expiry-interval", "0"]].concat()).succeed();
    ferromq("sub", &broker, &["-t", "other", "-E"]).succeed();
    assert_eq!(broker.handle().clients().iter().filter(|client| client.client_id.as_str() == "leaver").count(), 0);
}

#[test]
fn the_broker_checks_who_could_connect_and_shows_no_password_as_one() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("broker.toml");
    let check = |text: &str| {
        std::fs::write(&file, text).unwrap();
        Run::start("broker", &["--check", "-c", file.to_str().unwrap()]).finish()
    };
    let run = check("[auth]\nusers = { dev = \"secret\" }");
    assert_eq!(run.code, Some(0), "{}", run.err);
    assert!(run.out.contains("\n# users = { dev = \"********\" }\n"), "{}", run.out);
    assert_eq!(check(&run.out).code, Some(0));
    for (text, words) in [
        ("[auth]\nallow_anonymous = false", "nobody could connect"),
        ("[auth]\nusers = { dev = \"********\" }", "hides a password"),
        ("[capabilities]\nmaximum_packet_size = 5", "from 128 B"),
        ("[queue]\nmessages_max = 0", "more than 0"),
        ("shards = 65", "from 0 to 64"),
    ] {
        let run = check(text);
        assert!(run.code != Some(0) && run.err.contains(words), "{text}: {:?} {}", run.code, run.err);
    }
}

#[test]
fn the_broker_logs_refusals_outlives_hangups_and_ends_at_a_second_signal() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("broker.toml");
    std::fs::write(
        &file,
        "listeners = [\"tcp://127.0.0.1:0\"]\n[auth]\nallow_anonymous = false\nusers = { dev = \"s\" }",
    )
    .unwrap();
    let mut broker = Run::start("broker", &["-c", file.to_str().unwrap()]);
    let port = broker.line().rsplit_once(':').unwrap().1.to_owned();
    assert_eq!(broker.line(), "ready");
    let client = ["-h", "127.0.0.1", "-p", &port, "-t", "a", "-q", "1"];
    let user = [&client[..], &["-u", "dev", "-P", "s"]].concat();
    assert_eq!(Run::start("pub", &[&client[..], &["-n", "-i", "eve", "-u", "foo"]].concat()).finish().code, Some(134));
    broker.expect_error("client refused");
    broker.signal("HUP");
    broker.expect_error("SIGHUP is ignored");
    // A subscriber that is stopped takes nothing, so that the broker waits for it at its end.
    let mut stopped = Run::start("sub", &[&user[..], &["-d"]].concat());
    stopped.expect_error(" subscribed ");
    stopped.signal("STOP");
    let large = directory.path().join("large");
    std::fs::write(&large, vec![0; 32 << 20]).unwrap();
    Run::start("pub", &[&user[..], &["-f", large.to_str().unwrap()]].concat()).succeed();
    broker.signal("TERM");
    broker.expect_error("shutting down");
    broker.signal("TERM");
    let run = broker.finish();
    assert_eq!(run.code, Some(1), "{}", run.err);
    assert!(run.err.contains("still to be told"), "{}", run.err);
}

#[test]
fn top_shows_topics_by_rate_and_what_the_broker_tells_of_itself() {
    let broker = broker(Hooks::default());
    ferromq("pub", &broker, &["-t", "plant/1/temp", "-m", "21.5", "-r"]).succeed();
    ferromq("pub", &broker, &["-t", "plant/2/temp", "-m", "17", "-r"]).succeed();
    let table = ferromq("top", &broker, &["-n", "1", "--interval", "0.5", "-C", "1", "-s", "bytes"]).succeed();
    assert!(table.contains("ferromq version") && table.contains("retained "), "{table}");
    assert!(table.contains("plant/1/temp = 21.5") && !table.contains("plant/2"), "one row: {table}");
    assert!(table.contains("2 messages of 6 bytes on 2 topics"), "{table}");
}

#[test]
fn the_broker_lets_clients_do_what_its_rules_allow() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("broker.toml");
    let rules = "listeners = [\"tcp://127.0.0.1:0\"]\n\
        [[acl.rules]]\npermission = \"deny\"\nfilters = [\"dev/+/secret\"]\n\
        [[acl.rules]]\npermission = \"allow\"\nfilters = [\"dev/%c/#\"]\n\
        [[acl.rules]]\npermission = \"allow\"\naction = \"subscribe\"\nfilters = [\"public/#\"]\n";
    std::fs::write(&file, rules).unwrap();
    let mut broker = Run::start("broker", &["-c", file.to_str().unwrap()]);
    let port = broker.line().rsplit_once(':').unwrap().1.to_owned();
    assert_eq!(broker.line(), "ready");
    let client = ["-h", "127.0.0.1", "-p", &port, "-i", "a", "-q", "1"];
    let code =
        |command: &str, arguments: &[&str]| Run::start(command, &[&client[..], arguments].concat()).finish().code;
    for (command, topic, expected) in [
        ("pub", "dev/a/temp", 0),
        ("pub", "dev/b/temp", 1),
        ("pub", "dev/a/secret", 1),
        ("pub", "public/x", 1),
        ("sub", "public/+", 0),
        ("sub", "dev/a/temp", 0),
        ("sub", "dev/a/#", 1),
        ("sub", "$share/group/dev/b/temp", 1),
        ("sub", "#", 1),
    ] {
        let how = if command == "pub" { "-n" } else { "-E" };
        assert_eq!(code(command, &["-t", topic, how]), Some(expected), "{command} {topic}");
    }
    broker.signal("TERM");
    assert_eq!(broker.finish().code, Some(0));
}

fn broker(hooks: Hooks) -> Broker {
    let url: ListenerUrl = "tcp://127.0.0.1:0".parse().unwrap();
    Broker::builder().hooks(hooks).listen(url).start().unwrap()
}

fn address(broker: &Broker) -> [String; 4] {
    let url = broker.listeners()[0].to_string();
    ["-h".into(), "127.0.0.1".into(), "-p".into(), url.rsplit_once(':').unwrap().1.into()]
}

/// A client command that runs against the broker.
fn ferromq(name: &str, broker: &Broker, arguments: &[&str]) -> Run {
    let mut command = command(name, &address(broker));
    command.args(arguments);
    Run::spawn(command)
}

fn command(name: &str, arguments: &[String]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ferromq"));
    command.arg(name).args(arguments);
    command
}

/// Publishes until the first message is printed: nothing else tells that a quiet `sub` has subscribed.
fn publish_until_received(broker: &Broker, topic: &str, run: &mut Run) {
    // A retained message comes with the subscription, whenever that is.
    ferromq("pub", broker, &["-t", topic, "-q", "1", "-r", "-m", "first"]).succeed();
    assert_eq!(run.line(), "first");
    ferromq("pub", broker, &["-t", topic, "-q", "1", "-r", "-n"]).succeed();
    assert_eq!(run.line(), "");
}

/// A running command, its output read as it comes; killed when it is dropped before its end.
struct Run {
    child: Child,
    stdin: Option<ChildStdin>,
    out: Lines,
    err: Lines,
}

struct Lines {
    receiver: Receiver<String>,
    seen: String,
}

/// What a command came to.
struct Finished {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Run {
    fn start(name: &str, arguments: &[&str]) -> Self {
        let mut command = command(name, &[]);
        command.args(arguments);
        Self::spawn(command)
    }

    fn spawn(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let out = Lines::follow(child.stdout.take().unwrap());
        let err = Lines::follow(child.stderr.take().unwrap());
        Self { stdin: child.stdin.take(), child, out, err }
    }

    /// Gives the command all of its input.
    fn write(&mut self, bytes: &[u8]) {
        self.write_open(bytes);
        self.stdin = None;
    }

    /// Gives the command input that goes on.
    fn write_open(&mut self, bytes: &[u8]) {
        self.stdin.as_mut().unwrap().write_all(bytes).unwrap();
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args([format!("-{name}"), self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// The next line of output.
    fn line(&mut self) -> String {
        self.out.next().expect("the output goes on")
    }

    /// Waits for a line on standard error that holds this.
    fn expect_error(&mut self, words: &str) {
        while let Some(line) = self.err.next() {
            if line.contains(words) {
                return;
            }
        }
        panic!("{words:?} is not in {}", self.err.seen);
    }

    /// Closes our end of the command's output.
    fn close_output(&mut self) {
        // The thread that reads it ends with the next line that it cannot hand on.
        self.out.receiver = sync_channel(1).1;
    }

    /// Runs it to its end, which must be a good one; what it printed.
    fn succeed(self) -> String {
        let run = self.finish();
        assert_eq!(run.code, Some(0), "{}{}", run.out, run.err);
        run.out
    }

    fn finish(mut self) -> Finished {
        self.stdin = None;
        self.finish_open()
    }

    /// As `finish`, with the input left open.
    fn finish_open(mut self) -> Finished {
        while self.err.next().is_some() {}
        while self.out.next().is_some() {}
        let code = self.child.wait().unwrap().code();
        Finished { code, out: std::mem::take(&mut self.out.seen), err: std::mem::take(&mut self.err.seen) }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // It is gone already, as a rule.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Lines {
    fn follow(stream: impl Read + Send + 'static) -> Self {
        let (sender, receiver) = sync_channel(LINES_MAX);
        thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { receiver, seen: String::new() }
    }

    /// The next line, or `None` at the end.
    fn next(&mut self) -> Option<String> {
        match self.receiver.recv_timeout(PATIENCE) {
            Ok(line) => {
                self.seen.push_str(&line);
                self.seen.push('\n');
                Some(line)
            }
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => None,
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => panic!("nothing came after {:?}", self.seen),
        }
    }
}

/// A port where the test itself is the server.
fn scripted() -> (TcpListener, String) {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port().to_string();
    (server, port)
}

/// One MQTT 3.1.1 connection of a scripted server.
struct Peer {
    stream: TcpStream,
    decoder: Decoder,
}

impl Peer {
    fn accept(server: &TcpListener) -> Self {
        let (stream, _) = server.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream, decoder: Decoder::new() }
    }

    fn accept_connect(&mut self) {
        assert!(matches!(self.packet(), Packet::Connect(_)));
        let (reason, properties) = (ReasonCode::Success, Properties::new());
        self.send(&Packet::ConnAck(Box::new(ConnAck { session_present: false, reason, properties })));
    }

    fn accept_subscribe(&mut self) {
        let Packet::Subscribe(subscribe) = self.packet() else { panic!("SUBSCRIBE follows CONNECT") };
        let (packet_id, reasons) = (subscribe.packet_id, vec![ReasonCode::Success]);
        self.send(&Packet::SubAck(SubAck { packet_id, properties: Properties::new(), reasons }));
    }

    fn packet(&mut self) -> Packet {
        let mut bytes = [0; 1024];
        loop {
            if let Some(packet) = self.decoder.poll(Version::V3_1_1, &Limits::default()).unwrap() {
                return packet;
            }
            let count = self.stream.read(&mut bytes).unwrap();
            assert!(count > 0, "the client has closed the connection");
            self.decoder.feed(&bytes[..count]);
        }
    }

    fn send(&mut self, packet: &Packet) {
        let mut bytes = Vec::new();
        packet.encode(Version::V3_1_1, &mut bytes).unwrap();
        self.stream.write_all(&bytes).unwrap();
    }
}

/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_mins(1);

/// More lines than anything here prints.
const LINES_MAX: usize = 4096;
