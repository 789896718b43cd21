//! Sources of the daemon's RPC credentials: the operator's, else `bitcoin.conf`, else the daemon's cookie.

use sharechain::coin::Parent;
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;

use crate::runtime::secret::Secret;

/// Maximum size of a configuration or cookie file, in bytes: both are a few lines.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// User and password, ready for a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// User name; may be empty, as old daemons require only a password.
    pub user: String,
    pub password: Secret,
}

/// Credentials, now and after each restart of the daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credentials {
    /// Constant.
    Fixed {
        /// User and password.
        login: Login,
        /// Source, for messages.
        origin: String,
    },
    /// In a file that the daemon rewrites at each start: the first of these that exists.
    Cookie {
        /// Candidates, most likely first.
        paths: Vec<PathBuf>,
    },
    /// In a file named by the operator, read at each use: `user:password` in its first line, as in a cookie.
    File {
        /// Path of the file.
        path: PathBuf,
    },
}

/// Reason why there are no credentials.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CredentialsError {
    /// A file named by the operator cannot be read.
    #[error("cannot read {path}: {reason}")]
    Unreadable {
        /// Path of the file.
        path: String,
        /// Error text of the system.
        reason: String,
    },
    /// No source has any.
    #[error(
        "no RPC credentials for bitcoind: none given, {}. Give the password (arguments or environment), or set \
         rpcuser and rpcpassword in bitcoin.conf, or run as a user that can read bitcoind's cookie",
        looked_at.join(", ")
    )]
    Missing {
        /// Sources that were tried, and the result of each.
        looked_at: Vec<String>,
    },
    /// The daemon has not written its cookie, or has exited and removed it.
    #[error("no cookie at {} (bitcoind writes it when it starts: is it running?)", list(paths))]
    NoCookie {
        /// Paths that were tried.
        paths: Vec<PathBuf>,
    },
    /// The cookie exists, but is not readable for us, or malformed.
    #[error("cannot use the cookie {path}: {reason}")]
    Cookie {
        /// Path of the file.
        path: String,
        /// Cause.
        reason: String,
    },
    /// The operator's file is missing, unreadable or malformed.
    #[error("cannot use the login file {path}: {reason}")]
    LoginFile {
        /// Path of the file.
        path: String,
        /// Cause.
        reason: String,
    },
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" or ")
}

impl Credentials {
    /// Returns the current credentials; reads the cookie or file each time. Blocks on the disk.
    ///
    /// # Errors
    /// A cookie or file that is missing, unreadable or not `user:password`.
    pub fn login(&self) -> Result<Login, CredentialsError> {
        let paths = match self {
            Self::Fixed { login, .. } => return Ok(login.clone()),
            Self::Cookie { paths } => paths,
            Self::File { path } => return login_in(path),
        };
        for path in paths {
            let wrong = |reason: String| CredentialsError::Cookie { path: path.display().to_string(), reason };
            let text = match read(path) {
                Ok(text) => text,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(wrong(error.to_string())),
            };
            let (user, password) =
                text.trim_end().split_once(':').ok_or_else(|| wrong("it is not user:password".to_owned()))?;
            return Ok(Login { user: user.to_owned(), password: Secret::new(password) });
        }
        Err(CredentialsError::NoCookie { paths: paths.clone() })
    }

    /// Source of the credentials, for a message about a wrong password.
    pub fn origin(&self) -> String {
        match self {
            Self::Fixed { origin, .. } => origin.clone(),
            Self::Cookie { paths } => format!("the cookie {}", list(paths)),
            Self::File { path } => format!("the login file {}", path.display()),
        }
    }
}

/// Reads a login file of the operator's.
fn login_in(path: &Path) -> Result<Login, CredentialsError> {
    let wrong = |reason: String| CredentialsError::LoginFile { path: path.display().to_string(), reason };
    let text = read(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => wrong(format!("{error}; a daemon's cookie is there only while the daemon runs")),
        _ => wrong(error.to_string()),
    })?;
    let line = text.lines().next().unwrap_or_default().trim_end();
    let (user, password) = line
        .split_once(':')
        .filter(|(_, password)| !password.is_empty())
        .ok_or_else(|| wrong("its first line is not USER:PASSWORD".to_owned()))?;
    Ok(Login { user: user.to_owned(), password: Secret::new(password) })
}

/// Relevant settings of `bitcoin.conf`, as Bitcoin Core reads them for one chain.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConfFile {
    /// `rpcuser`.
    pub user: Option<String>,
    /// `rpcpassword`.
    pub password: Option<Secret>,
    /// `rpcport`.
    pub rpc_port: Option<u16>,
    /// `port`, of the P2P protocol.
    pub p2p_port: Option<u16>,
    /// `datadir`.
    pub data_dir: Option<PathBuf>,
    /// `rpccookiefile`; relative to the chain's folder.
    pub cookie_file: Option<PathBuf>,
}

impl ConfFile {
    /// Parses `text` for the chain whose section is called `section`. As in Core, the first value wins, the chain's
    /// section wins over the top, and ports at the top count for the main chain only.
    pub fn parse(text: &str, section: &str) -> Self {
        let mut settings: Vec<(String, &str, &str)> = Vec::new();
        let mut current = String::new();
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                current = name.trim().to_owned();
            } else if let Some((key, value)) = line.split_once('=') {
                // `regtest.rpcport=1` at the top is the same as `rpcport=1` below `[regtest]`.
                let (of, key) = match key.trim().split_once('.') {
                    Some((of, key)) if current.is_empty() => (of.to_owned(), key),
                    _ => (current.clone(), key.trim()),
                };
                settings.push((of, key, value.trim()));
            }
        }
        let find = |of: &str, key: &str| {
            settings.iter().find(|(found, name, _)| found == of && *name == key).map(|(_, _, value)| *value)
        };
        let anywhere = |key: &str| find(section, key).or_else(|| find("", key)).filter(|value| !value.is_empty());
        let port = |key: &str| {
            let top = if section == "main" { find("", key) } else { None };
            find(section, key).or(top).and_then(|value| value.parse().ok())
        };
        Self {
            user: anywhere("rpcuser").map(str::to_owned),
            password: anywhere("rpcpassword").map(Secret::new),
            rpc_port: port("rpcport"),
            p2p_port: port("port"),
            data_dir: anywhere("datadir").map(PathBuf::from),
            cookie_file: anywhere("rpccookiefile").map(PathBuf::from),
        }
    }
}

/// Result of the search: credentials, and the ports in the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundLogin {
    /// Credentials that were found.
    pub credentials: Credentials,
    /// RPC port of the daemon, if configured.
    pub rpc_port: Option<u16>,
    /// P2P port of the daemon, if configured.
    pub p2p_port: Option<u16>,
}

/// Searches for credentials: `given` ones, else those of the configuration at `config_path` (or at its usual place
/// below `home`), else the daemon's cookie. A cookie that does not exist yet is accepted if its folder does: the daemon
/// may start later than this node.
///
/// # Errors
/// A named file that cannot be read, or no credentials, with every source that was tried.
pub fn find(
    given: Option<&Login>,
    config_path: Option<&Path>,
    home: Option<&Path>,
    parent: &Parent,
) -> Result<FoundLogin, CredentialsError> {
    let usual_dir = home.map(|home| usual_data_dir(home, parent));
    let mut looked_at = Vec::new();
    let mut conf = ConfFile::default();
    let path = match config_path {
        Some(path) => Some(path.to_owned()),
        // With the password given, P2Pool ignores the configuration (protocol section 13.4): the daemon may run on
        // another machine, and this file may not be its own.
        None if given.is_some() => None,
        None => usual_dir.as_ref().map(|dir| dir.join(parent.conf_name)),
    };
    if let Some(path) = &path {
        match read(path) {
            Ok(text) => conf = ConfFile::parse(&text, parent.conf_section),
            Err(error) if config_path.is_none() && error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(CredentialsError::Unreadable {
                    path: path.display().to_string(),
                    reason: error.to_string(),
                });
            }
        }
        looked_at.push(format!("no rpcpassword in {}", path.display()));
    }
    let found = |credentials| FoundLogin { credentials, rpc_port: conf.rpc_port, p2p_port: conf.p2p_port };
    if let Some(login) = given {
        return Ok(found(Credentials::Fixed { login: login.clone(), origin: "the one given to p2pool".to_owned() }));
    }
    if let Some(password) = conf.password.clone() {
        let login = Login { user: conf.user.clone().unwrap_or_default(), password };
        let origin = path.map_or_else(String::new, |path| format!("rpcpassword in {}", path.display()));
        return Ok(found(Credentials::Fixed { login, origin }));
    }
    let paths = cookie_paths(&conf, config_path, usual_dir.as_deref(), parent);
    let configured = conf.cookie_file.is_some() || conf.data_dir.is_some();
    if configured || paths.iter().any(|path| path.exists() || path.parent().is_some_and(Path::is_dir)) {
        return Ok(found(Credentials::Cookie { paths }));
    }
    looked_at.extend(paths.iter().map(|path| format!("no cookie at {}", path.display())));
    if paths.is_empty() {
        looked_at.push("no home folder to look for a cookie in".to_owned());
    }
    Err(CredentialsError::Missing { looked_at })
}

/// Possible paths of the cookie. The folder of a configuration named by the operator counts too, since it is usually
/// the data directory.
fn cookie_paths(conf: &ConfFile, config_path: Option<&Path>, usual: Option<&Path>, parent: &Parent) -> Vec<PathBuf> {
    let dirs: Vec<PathBuf> = match &conf.data_dir {
        Some(dir) => vec![dir.clone()],
        None => config_path.and_then(Path::parent).into_iter().chain(usual).map(Path::to_owned).collect(),
    };
    let name = conf.cookie_file.clone().unwrap_or_else(|| PathBuf::from(".cookie"));
    // Joining an absolute path replaces the path before it.
    let mut paths: Vec<PathBuf> = dirs.iter().map(|dir| dir.join(parent.datadir_folder).join(&name)).collect();
    if paths.is_empty() && name.is_absolute() {
        paths.push(name);
    }
    paths.dedup();
    paths
}

/// Default data directory of the daemon.
fn usual_data_dir(home: &Path, parent: &Parent) -> PathBuf {
    if cfg!(target_os = "macos") {
        home.join("Library/Application Support").join(parent.data_folder_macos)
    } else {
        home.join(parent.data_folder)
    }
}

fn read(path: &Path) -> io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::open(path)?.take(FILE_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sharechain::coin::{BITCOIN, BITCOIN_REGTEST, LITECOIN};

    #[test]
    fn the_chains_section_wins_and_ports_at_the_top_are_the_main_chains() {
        let text = "rpcuser=alice # the operator\nrpcport=1\nport=2\nrpcpassword=secret\n[regtest]\nrpcport = 3\n\
                    rpcuser=bob\n[test]\nrpcuser=carol\n";
        let regtest = ConfFile::parse(text, "regtest");
        assert_eq!(regtest.user.as_deref(), Some("bob"));
        assert_eq!(regtest.password, Some(Secret::new("secret")));
        assert_eq!((regtest.rpc_port, regtest.p2p_port), (Some(3), None));
        let main = ConfFile::parse(text, "main");
        assert_eq!(main.user.as_deref(), Some("alice"));
        assert_eq!((main.rpc_port, main.p2p_port), (Some(1), Some(2)));
    }

    #[test]
    fn the_first_value_wins_and_a_dotted_name_is_a_section() {
        let conf = ConfFile::parse("rpcuser=a\nrpcuser=b\nregtest.rpcport=5\n#rpcpassword=x\n", "regtest");
        assert_eq!(conf.user.as_deref(), Some("a"));
        assert_eq!(conf.rpc_port, Some(5));
        assert_eq!(conf.password, None);
    }

    #[test]
    fn a_password_never_shows_in_debug_output() {
        let login = Login { user: "u".into(), password: Secret::new("hunter2") };
        assert!(!format!("{login:?}").contains("hunter2"));
    }

    #[test]
    fn what_is_given_wins_over_the_configuration() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(".bitcoin")).unwrap();
        std::fs::write(home.path().join(".bitcoin/bitcoin.conf"), "rpcpassword=conf\nrpcport=7\n").unwrap();
        let login = Login { user: "u".into(), password: Secret::new("given") };
        let given = find(Some(&login), None, Some(home.path()), &BITCOIN.parent).unwrap();
        assert_eq!(given.credentials.login().unwrap(), login);
        assert_eq!(given.rpc_port, None);
        let conf = find(None, None, Some(home.path()), &BITCOIN.parent).unwrap();
        assert_eq!(conf.credentials.login().unwrap().password, Secret::new("conf"));
        assert_eq!(conf.rpc_port, Some(7));
    }

    #[test]
    fn the_cookie_is_read_afresh_each_time() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join(".bitcoin/regtest");
        std::fs::create_dir_all(&folder).unwrap();
        let found = find(None, None, Some(home.path()), &BITCOIN_REGTEST.parent).unwrap();
        assert!(matches!(found.credentials.login(), Err(CredentialsError::NoCookie { .. })));
        for secret in ["one", "two"] {
            std::fs::write(folder.join(".cookie"), format!("__cookie__:{secret}")).unwrap();
            assert_eq!(found.credentials.login().unwrap().password, Secret::new(secret));
        }
        std::fs::write(folder.join(".cookie"), "rubbish").unwrap();
        assert!(matches!(found.credentials.login(), Err(CredentialsError::Cookie { .. })));
    }

    #[test]
    fn a_login_file_is_read_at_each_use_and_its_errors_have_its_path_and_no_secret() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("login");
        let credentials = Credentials::File { path: path.clone() };
        let missing = credentials.login().unwrap_err().to_string();
        assert!(missing.contains(path.to_str().unwrap()) && missing.contains("while the daemon runs"), "{missing}");
        for (text, password) in [("me:one\n", "one"), ("me:two:three\r\nand a comment\n", "two:three")] {
            std::fs::write(&path, text).unwrap();
            let login = credentials.login().unwrap();
            assert_eq!((login.user.as_str(), login.password.expose()), ("me", password));
        }
        for text in ["", "hunter2\n", "me:\nhunter2", "\nme:hunter2"] {
            std::fs::write(&path, text).unwrap();
            let error = credentials.login().unwrap_err().to_string();
            assert!(error.ends_with("its first line is not USER:PASSWORD") && !error.contains("hunter2"), "{error}");
        }
        assert_eq!(credentials.origin(), format!("the login file {}", path.display()));
    }

    #[test]
    fn litecoins_daemon_is_looked_for_in_its_own_folder() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(".litecoin")).unwrap();
        std::fs::write(home.path().join(".litecoin/litecoin.conf"), "rpcpassword=ltc\n").unwrap();
        let found = find(None, None, Some(home.path()), &LITECOIN.parent).unwrap();
        assert_eq!(found.credentials.login().unwrap().password, Secret::new("ltc"));
    }

    #[test]
    fn nothing_found_names_every_place() {
        let home = tempfile::tempdir().unwrap();
        let error = find(None, None, Some(home.path()), &BITCOIN_REGTEST.parent).unwrap_err().to_string();
        assert!(error.contains(".bitcoin/bitcoin.conf"), "{error}");
        assert!(error.contains(".bitcoin/regtest/.cookie"), "{error}");
        assert!(error.contains("Give the password"), "{error}");
    }

    #[test]
    fn a_named_configuration_that_is_missing_is_an_error() {
        let error = find(None, Some(Path::new("/nonexistent/bitcoin.conf")), None, &BITCOIN.parent).unwrap_err();
        assert!(matches!(error, CredentialsError::Unreadable { .. }));
    }

    #[test]
    fn the_cookie_of_a_named_configuration_is_looked_for_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("regtest")).unwrap();
        std::fs::write(dir.path().join("bitcoin.conf"), "server=1\n").unwrap();
        std::fs::write(dir.path().join("regtest/.cookie"), "__cookie__:c\n").unwrap();
        let found = find(None, Some(&dir.path().join("bitcoin.conf")), None, &BITCOIN_REGTEST.parent).unwrap();
        assert_eq!(found.credentials.login().unwrap().password, Secret::new("c"));
    }
}
