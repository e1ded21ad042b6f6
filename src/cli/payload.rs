//! The payload of `pub` and `rr`: from the arguments, a file, or standard input.
//!
//! Files are read on a thread of their own: a terminal or a pipe can be waited for by blocking only, and meanwhile
//! signals must be heard.

use std::{
    ffi::OsString,
    io::{self, Read},
    path::PathBuf,
};

use bytes::Bytes;
use clap::Args;
use tokio::sync::oneshot;

use super::Failure;

/// Where the payload comes from.
#[derive(Debug, Args)]
pub(super) struct Payload {
    /// The payload.
    #[arg(short, long, group = "payload", allow_hyphen_values = true)]
    message: Option<OsString>,
    /// The payload is the content of this file.
    #[arg(short, long, group = "payload", allow_hyphen_values = true)]
    file: Option<PathBuf>,
    /// The payload is all of standard input.
    #[arg(short = 's', long = "stdin-file", group = "payload")]
    stdin: bool,
    /// The payload is empty; retained (pub -r), it clears what was retained.
    #[arg(short = 'n', long = "null-message", group = "payload")]
    null: bool,
}

impl Payload {
    /// The payload. Dropping the future leaves the reading thread to itself.
    pub(super) async fn read(&self) -> Result<Bytes, Failure> {
        if let Some(message) = &self.message {
            return Ok(message.clone().into_encoded_bytes().into());
        }
        if let Some(path) = self.file.clone() {
            let name = path.display().to_string();
            let read = aside(move || std::fs::read(path)).await;
            return Ok(read.map_err(|error| Failure::usage(format!("-f {name}: {error}")))?.into());
        }
        if self.stdin {
            let read = || {
                let mut payload = Vec::new();
                io::stdin().lock().read_to_end(&mut payload).map(|_| payload)
            };
            return Ok(aside(read).await?.into());
        }
        Ok(Bytes::new())
    }
}

/// Reads on a thread of its own.
async fn aside(read: impl FnOnce() -> io::Result<Vec<u8>> + Send + 'static) -> io::Result<Vec<u8>> {
    let (sender, receiver) = oneshot::channel();
    std::thread::Builder::new().spawn(move || {
        // Who has been interrupted does not want it any more.
        let _ = sender.send(read());
    })?;
    receiver.await.unwrap_or_else(|_| Err(io::Error::other("the reading thread has failed")))
}
