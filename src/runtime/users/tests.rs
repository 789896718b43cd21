//! Tests of the users: the file, what is remembered, and which networks guessing slows down.

use futures::FutureExt;
use parking_lot::Condvar;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, mpsc};
use tempfile::TempDir;
use tokio::time::Instant;

use super::line::{GUESS_INTERVAL, GUESSES};
use super::*;

/// Hash of `hunter2`, made by libxcrypt as `htpasswd -nbB -C 4` does.
const FOREIGN: &str = "$2y$04$abcdefghijklmnopqrstuuV3duMsC0HpUex6N9qapiuOHHWkwRXVm";

/// Hash of `right`.
static HASH: LazyLock<String> = LazyLock::new(|| bcrypt::hash("right", 4).unwrap());

const HOME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

/// Address in a network of its own.
fn elsewhere(number: u16) -> IpAddr {
    let [high, low] = number.to_be_bytes();
    [10, high, low, 1].into()
}

impl Users {
    /// True if `name` is a user with this password, asked from `source`.
    async fn admits(&self, name: &str, password: &str, source: IpAddr) -> bool {
        self.check(&[name], password, source).await == Verdict::Accepted
    }
}

/// A file of users, with a comparison that counts instead of taking time: `right` is right.
struct File {
    folder: TempDir,
    checks: Arc<AtomicUsize>,
}

impl File {
    fn of(text: &str) -> Self {
        let file = Self { folder: tempfile::tempdir().unwrap(), checks: Arc::default() };
        file.write(text);
        file
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("users")
    }

    fn write(&self, text: &str) {
        std::fs::write(self.path(), text).unwrap();
    }

    fn users(&self) -> Users {
        let checks = self.checks.clone();
        let matches = move |password: &str, _: &str| {
            checks.fetch_add(1, Ordering::Relaxed);
            password == "right"
        };
        Users::read_with(&self.path(), Arc::new(matches), slots(), CHECK_TIMEOUT).unwrap()
    }

    fn checks(&self) -> usize {
        self.checks.load(Ordering::Relaxed)
    }
}

/// Slots of a test's own: tests of one process would keep each other waiting.
fn slots() -> &'static Slots {
    Box::leak(Box::new(Slots::new()))
}

fn line(name: &str) -> String {
    format!("{name}:{}\n", *HASH)
}

#[tokio::test]
async fn a_file_made_by_htpasswd_has_names_hashes_and_comments() {
    let own = bcrypt::hash("secret", 4).unwrap();
    let file =
        File::of(&format!("# miners\n\nbob:{FOREIGN}\r\n  alice:{own}  \nx:{}\n", own.replacen("$2b", "$2a", 1)));
    let users = Users::read(&file.path()).unwrap();
    for (name, password, is_right) in [
        ("bob", "hunter2", true),
        ("bob", "hunter3", false),
        ("bob", "", false),
        ("alice", "secret", true),
        ("x", "secret", true),
        ("Bob", "hunter2", false),
        ("# miners", "", false),
        ("", "hunter2", false),
    ] {
        assert_eq!(users.admits(name, password, HOME).await, is_right, "{name} {password}");
    }
}

#[tokio::test]
async fn a_line_for_everyone_holds_for_users_without_one_of_their_own() {
    let own = bcrypt::hash("own", 4).unwrap();
    let file = File::of(&format!("*:{FOREIGN}\nbob:{own}\n"));
    let users = Users::read(&file.path()).unwrap();
    assert!(users.admits("anyone", "hunter2", HOME).await);
    assert!(users.admits("", "hunter2", HOME).await);
    assert!(!users.admits("anyone", "own", HOME).await);
    assert!(users.admits("bob", "own", HOME).await);
    assert!(!users.admits("bob", "hunter2", HOME).await);
    let names = ["bob.rig", "bob"];
    assert_eq!(users.check(&names, "own", HOME).await, Verdict::Accepted);
    assert_eq!(users.check(&names, "hunter2", HOME).await, Verdict::Refused);
}

#[test]
fn what_is_wrong_with_a_file_is_named_by_its_line_and_never_quoted() {
    for (text, problem) in [
        ("hunter2", "line 1: not NAME:HASH"),
        ("\n:hunter2", "line 2: not NAME:HASH"),
        ("bob:hunter2", "line 1: not a bcrypt hash"),
        ("bob:$apr1$hunter2$hunter2", "line 1: not a bcrypt hash"),
        ("bob:$2y$05$hunter2", "line 1: not a bcrypt hash"),
        (
            "bob:$2y$31$abcdefghijklmnopqrstuuV3duMsC0HpUex6N9qapiuOHHWkwRXVm",
            "line 1: the cost of the hash is above 14",
        ),
        (&format!("{0}{0}", line("bob")), "line 2: the name is given twice"),
        ("# nobody yet", "has no users"),
    ] {
        let file = File::of(text);
        let error = Users::read(&file.path()).unwrap_err().to_string();
        assert!(error.contains(problem) && error.contains(&*file.path().to_string_lossy()), "{text}: {error}");
        assert!(!error.contains("hunter2") && !error.contains("abcdef") && !error.contains(&**HASH), "{error}");
    }
    let error = Users::read(Path::new("/no/such")).unwrap_err().to_string();
    assert!(error.contains("`/no/such`"), "{error}");
    let users = File::of(&line("bob")).users();
    assert!(!format!("{users:?}").contains(&**HASH), "no hash belongs in a log");
}

#[tokio::test]
async fn five_thousand_devices_with_one_password_cost_one_check() {
    let file = File::of(&(line("*") + &line("farm")));
    let users = file.users();
    for round in 0..2 {
        let logins = (0..5000).map(|_| {
            let users = users.clone();
            tokio::spawn(async move { users.admits("farm", "right", HOME).await })
        });
        for login in logins.collect::<Vec<_>>() {
            assert!(login.await.unwrap(), "round {round}");
        }
    }
    assert_eq!(file.checks(), 1);
    // With one password for everyone, each mines for an address of its own.
    let logins = (0..5000).map(|device| {
        let users = users.clone();
        tokio::spawn(async move { users.admits(&format!("address{device}"), "right", HOME).await })
    });
    for login in logins.collect::<Vec<_>>() {
        assert!(login.await.unwrap());
    }
    assert_eq!(file.checks(), 2);
}

#[tokio::test]
async fn a_device_with_an_old_password_is_refused_again_and_again_for_one_check() {
    let file = File::of(&line("farm"));
    let users = file.users();
    for _ in 0..1000 {
        assert!(!users.admits("farm", "old", HOME).await);
    }
    assert!(users.admits("farm", "right", HOME).await, "its neighbour is not hurt");
    assert_eq!(file.checks(), 2);
}

/// Guesses that a network earned since `started`.
fn earned(started: Instant) -> f64 {
    started.elapsed().as_secs_f64() / GUESS_INTERVAL.as_secs_f64()
}

#[tokio::test]
async fn a_network_that_guesses_has_to_wait_and_no_other() {
    let file = File::of(&line("bob"));
    let users = file.users();
    let started = Instant::now();
    for guess in 0..GUESSES {
        // Names that do not exist cost as much as those that do.
        let name = if guess % 2 == 0 { "bob" } else { "nobody" };
        assert!(!users.admits(name, &format!("guess {guess}"), HOME).await);
    }
    assert!(users.0.line.guesses_left(HOME) <= earned(started));
    // It waits for seconds: far longer than the check of another network.
    let mut guesser = pin!(users.admits("bob", "one more", HOME));
    assert!((&mut guesser).now_or_never().is_none());
    assert!(users.admits("bob", "right", elsewhere(1)).await);
    assert!((&mut guesser).now_or_never().is_none());
    assert!((users.0.line.guesses_left(elsewhere(1)) - f64::from(GUESSES)).abs() < f64::EPSILON);
    // What was right before is right at once, wherever it comes from.
    assert_eq!(users.admits("bob", "right", HOME).now_or_never(), Some(true));
    assert_eq!(file.checks(), usize::try_from(GUESSES).unwrap() + 1);
}

/// Comparison that waits until it is released, and counts how many run at once.
#[derive(Default)]
struct Slow {
    running: Mutex<usize>,
    changed: Condvar,
    most: AtomicUsize,
}

impl Slow {
    /// Users whose password `slow` takes until `release`.
    fn users(self: &Arc<Self>, file: &File, release: mpsc::Receiver<()>, check_timeout: Duration) -> Users {
        let (slow, release) = (self.clone(), std::sync::Mutex::new(release));
        let matches = move |password: &str, _: &str| {
            let running = {
                let mut running = slow.running.lock();
                *running += 1;
                slow.changed.notify_all();
                *running
            };
            slow.most.fetch_max(running, Ordering::Relaxed);
            if password.starts_with("slow") {
                let _ = release.lock().unwrap().recv();
            }
            *slow.running.lock() -= 1;
            password == "right"
        };
        Users::read_with(&file.path(), Arc::new(matches), slots(), check_timeout).unwrap()
    }

    fn wait_for_one(&self) {
        let mut running = self.running.lock();
        self.changed.wait_while(&mut running, |running| *running == 0);
    }
}

#[tokio::test]
async fn strangers_keep_no_network_waiting_that_gave_a_right_password() {
    let file = File::of(&(line("bob") + &line("carol")));
    let (release, released) = mpsc::channel();
    let slow = Arc::<Slow>::default();
    let users = slow.users(&file, released, CHECK_TIMEOUT);
    assert!(users.admits("bob", "right", HOME).await);
    let strangers: Vec<_> = (0..50)
        .map(|number| {
            let users = users.clone();
            tokio::spawn(async move { users.admits("bob", &format!("slow {number}"), elsewhere(number)).await })
        })
        .collect();
    let waited = slow.clone();
    spawn_blocking(move || waited.wait_for_one()).await.unwrap();
    // A stranger's check runs, and 49 more wait.
    assert!(users.admits("carol", "right", HOME).await);
    for _ in &strangers {
        release.send(()).unwrap();
    }
    for stranger in strangers {
        assert!(!stranger.await.unwrap());
    }
    assert_eq!(slow.most.load(Ordering::Relaxed), 2, "one check of strangers and one of known networks");
}

#[tokio::test]
async fn a_guesser_that_hangs_up_has_spent_its_guess() {
    let file = File::of(&line("bob"));
    let (release, released) = mpsc::channel();
    let slow = Arc::<Slow>::default();
    let users = slow.users(&file, released, CHECK_TIMEOUT);
    let started = Instant::now();
    for guess in 0..GUESSES {
        let guesser = tokio::spawn({
            let users = users.clone();
            async move { users.admits("bob", &format!("slow {guess}"), HOME).await }
        });
        let waited = slow.clone();
        spawn_blocking(move || waited.wait_for_one()).await.unwrap();
        guesser.abort();
        assert!(guesser.await.unwrap_err().is_cancelled());
        release.send(()).unwrap();
        // The check goes on to its end.
        let spent = async {
            while users.0.line.guesses_left(HOME) > f64::from(GUESSES - guess - 1) + earned(started) {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(20), spent).await.unwrap_or_else(|_| panic!("guess {guess} is not spent"));
    }
}

#[tokio::test]
async fn a_password_that_waits_too_long_is_neither_accepted_nor_refused() {
    let file = File::of(&line("bob"));
    let (release, released) = mpsc::channel();
    let slow = Arc::<Slow>::default();
    let users = slow.users(&file, released, Duration::from_millis(100));
    assert_eq!(users.check(&["bob"], "slow", elsewhere(1)).await, Verdict::Busy);
    assert_eq!(users.check(&["bob"], "right", HOME).await, Verdict::Busy);
    // The check itself goes on, and then it is the next one's turn.
    release.send(()).unwrap();
    let accepted = async { while users.check(&["bob"], "right", HOME).await != Verdict::Accepted {} };
    timeout(Duration::from_secs(20), accepted).await.unwrap();
    assert_eq!(users.check(&["bob"], "slow", elsewhere(1)).await, Verdict::Refused, "its answer is remembered");
}

#[tokio::test]
async fn a_changed_file_holds_at_once_and_a_broken_one_leaves_the_users_as_they_were() {
    let file = File::of(&(line("bob") + &line("carol")));
    let users = file.users();
    assert!(users.admits("bob", "right", HOME).await && users.admits("carol", "right", HOME).await);
    file.write(&(line("bob") + &line("dave")));
    users.refresh(false);
    assert!(!users.admits("carol", "right", HOME).await, "what was remembered of her does not count any more");
    assert!(users.admits("bob", "right", HOME).await && users.admits("dave", "right", HOME).await);

    file.write("bob:oops\n");
    users.refresh(false);
    assert!(users.admits("dave", "right", HOME).await);
    std::fs::remove_file(file.path()).unwrap();
    users.refresh(false);
    assert!(users.admits("dave", "right", HOME).await);

    file.write(&line("erin"));
    users.refresh(false);
    assert!(users.admits("erin", "right", HOME).await && !users.admits("dave", "right", HOME).await);
    // On request, the file is read although it looks the same.
    let before = users.0.table.read().clone();
    users.refresh(false);
    assert!(Arc::ptr_eq(&before, &users.0.table.read()));
    users.refresh(true);
    assert!(!Arc::ptr_eq(&before, &users.0.table.read()));
}

#[tokio::test]
async fn an_overlong_password_costs_no_check() {
    let file = File::of(&line("bob"));
    let users = file.users();
    let long = "x".repeat(CREDENTIAL_BYTES_MAX + 1);
    assert!(!users.admits("bob", &long, HOME).await && !users.admits(&long, "right", HOME).await);
    assert_eq!(file.checks(), 0);
}
