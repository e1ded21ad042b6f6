//! A broker in a process of its own.

use std::{
    error::Error,
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use ferromq::bench::{Usage, resident_bytes};

/// How a broker is started.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) name: String,
    program: String,
    /// `{port}` stands for the port, `{config}` for a file with `config`.
    arguments: Vec<String>,
    config: String,
}

/// A broker that runs; it is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Broker {
    child: Child,
    address: SocketAddr,
    _directory: tempfile::TempDir,
}

/// What is to be measured: ours, and mosquitto where it is installed.
pub(crate) fn commands(ferromq: &Path) -> Vec<Start> {
    let ours = Start {
        name: "FerroMQ".to_owned(),
        program: ferromq.display().to_string(),
        arguments: ["broker", "--config", "{config}"].map(str::to_owned).into(),
        config: "listeners = [\"mqtt://127.0.0.1:{port}\"]\n".to_owned(),
    };
    let mosquitto = ["/usr/sbin/mosquitto", "/usr/bin/mosquitto", "/usr/local/sbin/mosquitto"]
        .into_iter()
        .find(|path| Path::new(path).exists())
        .map(|program| Start {
            name: "mosquitto".to_owned(),
            program: program.to_owned(),
            arguments: ["-c", "{config}"].map(str::to_owned).into(),
            config: "listener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\n".to_owned(),
        });
    [Some(ours), mosquitto].into_iter().flatten().collect()
}

/// What does the least that can be done, `benches/e2e/relay.rs`.
pub(crate) fn relay(program: &Path) -> Start {
    Start {
        name: "relay".to_owned(),
        program: program.display().to_string(),
        arguments: ["--port", "{port}"].map(str::to_owned).into(),
        config: String::new(),
    }
}

impl Broker {
    pub(crate) fn start(start: &Start) -> Result<Self, Box<dyn Error>> {
        let directory = tempfile::tempdir()?;
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let port = address.port().to_string();
        let config = directory.path().join("broker.conf");
        fs::write(&config, start.config.replace("{port}", &port))?;
        let fill = |text: &String| text.replace("{port}", &port).replace("{config}", &config.display().to_string());
        let child = Command::new(&start.program)
            .args(start.arguments.iter().map(fill))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("{} cannot be started: {error}", start.program))?;
        let mut broker = Self { child, address, _directory: directory };
        broker.wait_until_it_listens(&start.name)?;
        Ok(broker)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Processor time taken so far.
    pub(crate) fn cpu(&self) -> Duration {
        Usage::of(self.child.id()).unwrap_or_default().cpu
    }

    /// Resident memory, bytes.
    pub(crate) fn resident(&self) -> u64 {
        resident_bytes(self.child.id()).unwrap_or_default()
    }

    fn wait_until_it_listens(&mut self, name: &str) -> Result<(), Box<dyn Error>> {
        let deadline = Instant::now() + START_TIMEOUT;
        while TcpStream::connect(self.address).is_err() {
            if let Some(status) = self.child.try_wait()? {
                return Err(format!("{name} ended at once: {status}").into());
            }
            if Instant::now() > deadline {
                return Err(format!("{name} does not listen").into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How long a broker may take to listen.
const START_TIMEOUT: Duration = Duration::from_secs(20);
