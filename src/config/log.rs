//! Options of the log.

use super::options::Opt;
use super::values;
use crate::runtime::log::Config;

pub(super) fn options() -> Vec<Opt<Config>> {
    vec![
        Opt::flag("debug", |config: &mut Config| config.debug = true)
            .help("Log the events of each miner and peer"),
        Opt::path("logfile", "FILE", |config: &mut Config, path| config.logfile = Some(path))
            .derived(|config| config.logfile.iter().map(|path| path.display().to_string()).collect())
            .help(
            "Log file, in addition to the terminal [default: log in the network's folder of the data directory]",
        ),
        Opt::field("log-size", "MB", values::megabytes, show_megabytes, |config: &mut Config| &mut config.size_max).help(
            "Maximum size of the log file, in MB, before it is rotated to FILE.1 and so on; 0 for no limit. SIGUSR1 \
             and SIGHUP start a new file",
        ),
        Opt::field("log-files", "COUNT", values::whole(0..=1000), u32::to_string, |config: &mut Config| {
            &mut config.files_kept
        })
        .help("Number of rotated log files to keep"),
    ]
}

fn show_megabytes(bytes: &u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "exact up to 10^15, and at most 10^12")]
    let megabytes = *bytes as f64 / 1e6;
    values::show_number(megabytes)
}
