//! Asks a running node, and shows a person what it says.

use futures::{SinkExt, StreamExt};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiserror::Error;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::{Answer, Request, socket_path, table, with_short_path};
use crate::runtime::json_lines;

/// How long the node may take over an answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// What to ask of whom.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The node's data directory, the network's own folder.
    pub data_dir: PathBuf,
    /// The question or order.
    pub request: Request,
    /// Whether a program reads the answer, and not a person.
    pub json: bool,
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum ControlError {
    /// Nobody listens there.
    #[error(
        "no p2pool runs on {0}: start one (`p2pool --help`), or say with --datadir and --net, as the node was told, where it \
         runs"
    )]
    NotRunning(String),
    /// Somebody else's.
    #[error("the node on {0} listens only to the user that runs it: ask as that user")]
    NotAllowed(String),
    /// The connection broke.
    #[error("cannot speak with the node on {0}: {1}")]
    Connection(String, io::Error),
    /// It took too long.
    #[error("the node on {0} does not answer within {ANSWER_MAX:?}")]
    Silent(String),
    /// It said no.
    #[error("{0}")]
    Refused(String),
}

/// Asks, and gives what is to be printed.
///
/// # Errors
/// No answer, or a refusal.
pub async fn run(config: &Config, now: f64) -> Result<String, ControlError> {
    match ask(&config.data_dir, &config.request).await? {
        Answer::Error(reason) => Err(ControlError::Refused(reason)),
        Answer::Result(result) if config.json => Ok(format!("{result:#}\n")),
        Answer::Result(result) => Ok(table::render(&config.request, result, now)),
    }
}

/// Sends one request to the node on `data_dir`, and takes its answer.
///
/// # Errors
/// No answer.
pub async fn ask(data_dir: &Path, request: &Request) -> Result<Answer, ControlError> {
    let place = data_dir.display().to_string();
    let broken = |error| ControlError::Connection(place.clone(), error);
    // Blocking, but a socket of this machine connects at once or not at all.
    let connected = with_short_path(&socket_path(data_dir), |path| std::os::unix::net::UnixStream::connect(path));
    let stream = match connected {
        Ok(stream) => stream,
        Err(error) => {
            return Err(match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ControlError::NotRunning(place),
                io::ErrorKind::PermissionDenied => ControlError::NotAllowed(place),
                _ => broken(error),
            });
        }
    };
    stream.set_nonblocking(true).map_err(broken)?;
    let stream = UnixStream::from_std(stream).map_err(broken)?;
    let exchange = async {
        let (reader, writer) = stream.into_split();
        let request = serde_json::to_value(request)?;
        // Kept until the answer is there: closing it would end the conversation.
        let mut requests = json_lines::writer(writer);
        requests.send(request).await?;
        let line = json_lines::reader(reader).next().await.ok_or(io::ErrorKind::UnexpectedEof)??;
        Ok(serde_json::from_value(line)?)
    };
    match timeout(ANSWER_MAX, exchange).await {
        Ok(answer) => answer.map_err(broken),
        Err(_) => Err(ControlError::Silent(place)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_node_that_does_not_run_is_named_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let error = ask(folder.path(), &Request::Peers).await.unwrap_err();
        assert!(matches!(error, ControlError::NotRunning(_)));
        assert!(error.to_string().contains(&folder.path().display().to_string()));
        // One that was killed leaves its socket behind.
        drop(std::os::unix::net::UnixListener::bind(socket_path(folder.path())).unwrap());
        let error = ask(folder.path(), &Request::Peers).await.unwrap_err();
        assert!(matches!(error, ControlError::NotRunning(_)), "{error}");
        let long = folder.path().join("x".repeat(150));
        assert!(matches!(ask(&long, &Request::Peers).await, Err(ControlError::NotRunning(_))));
    }
}
