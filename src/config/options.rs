//! An option is written down once: its name, the field of a part's configuration that it sets, and a line of help. Its
//! default is what the field has in the part's own configuration; the name of its variable follows from its own
//! (`environment`).

use clap::error::Result as ClapResult;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use std::error::Error;
use std::ffi::OsStr;
use std::fmt;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::time::Duration;

use super::problems::Problems;
use super::values::{self, Parse};

/// A part of the program that is configured by options.
pub(super) trait Part: Sized + 'static {
    /// The configuration where nothing is said: the options' defaults.
    fn base() -> Self;

    /// Its options, in the order in which they are shown and set.
    fn options() -> Vec<Opt<Self>>;
}

type Set<C> = Box<dyn Fn(&mut C, &ArgMatches) -> Result<(), String>>;

/// Says something of a `C`.
type Show<C, T> = Box<dyn Fn(&mut C) -> T>;

/// An option that sets something in a `C`.
pub(super) struct Opt<C> {
    arg: Arg,
    set: Set<C>,
    /// The default, as it would be given.
    default: Option<Show<C, String>>,
    /// The values that are used where none is given and that follow from something else, such as the network.
    derived: Option<Show<C, Vec<String>>>,
}

impl<C: 'static> Opt<C> {
    fn new(arg: Arg, set: Set<C>) -> Self {
        Self { arg, set, default: None, derived: None }
    }

    /// A switch.
    pub(super) fn flag(name: &'static str, set: fn(&mut C)) -> Self {
        let arg = Arg::new(name).long(name).action(ArgAction::SetTrue);
        let set = move |config: &mut C, matches: &ArgMatches| {
            if matches.get_flag(name) {
                set(config);
            }
            Ok(())
        };
        Self::new(arg, Box::new(set))
    }

    /// An option with a value; together with the rest of the configuration it may be wrong.
    pub(super) fn setter<T: Clone + Send + Sync + 'static>(
        name: &'static str,
        unit: &'static str,
        parse: impl Parse<T>,
        set: impl Fn(&mut C, T) -> Result<(), String> + 'static,
    ) -> Self {
        let arg = Arg::new(name).long(name).value_name(unit).value_parser(parse).allow_negative_numbers(true);
        let set = move |config: &mut C, matches: &ArgMatches| match matches.get_one::<T>(name) {
            Some(value) => set(config, value.clone()),
            None => Ok(()),
        };
        Self::new(arg, Box::new(set))
    }

    /// An option with a value that needs no other to be right.
    pub(super) fn optional<T: Clone + Send + Sync + 'static>(
        name: &'static str,
        unit: &'static str,
        parse: impl Parse<T>,
        set: fn(&mut C, T),
    ) -> Self {
        Self::setter(name, unit, parse, move |config, value| {
            set(config, value);
            Ok(())
        })
    }

    /// An option that may be given several times. Several values in one are divided by `delimiter`.
    pub(super) fn list<T: Clone + Send + Sync + 'static>(
        name: &'static str,
        unit: &'static str,
        delimiter: Option<char>,
        parse: impl Parse<T>,
        set: fn(&mut C, Vec<T>) -> Result<(), String>,
    ) -> Self {
        let arg = Arg::new(name).long(name).value_name(unit).value_parser(parse).action(ArgAction::Append);
        let set = move |config: &mut C, matches: &ArgMatches| match matches.get_many::<T>(name) {
            Some(values) => set(config, values.cloned().collect()),
            None => Ok(()),
        };
        Self::new(arg.value_delimiter(delimiter), Box::new(set))
    }

    /// An option whose value is a field; the default is the field's.
    pub(super) fn field<T: Clone + Send + Sync + 'static>(
        name: &'static str,
        unit: &'static str,
        parse: impl Parse<T>,
        show: fn(&T) -> String,
        field: fn(&mut C) -> &mut T,
    ) -> Self {
        let option = Self::setter(name, unit, parse, move |config, value| {
            *field(config) = value;
            Ok(())
        });
        option.default(move |config| show(field(config)))
    }

    /// A file or folder.
    pub(super) fn path(name: &'static str, unit: &'static str, set: fn(&mut C, PathBuf)) -> Self {
        let mut option = Self::optional(name, unit, |text: &str| Ok(PathBuf::from(text)), set);
        // Names of files need not be UTF-8.
        option.arg = option.arg.value_parser(clap::value_parser!(PathBuf));
        option
    }

    /// A time limit in seconds.
    pub(super) fn seconds(
        name: &'static str,
        range: std::ops::RangeInclusive<f64>,
        field: fn(&mut C) -> &mut Duration,
    ) -> Self {
        Self::field(name, "SECONDS", values::seconds(range), |time| values::show_number(time.as_secs_f64()), field)
    }

    /// A number in `range`.
    pub(super) fn number(
        name: &'static str,
        unit: &'static str,
        range: std::ops::RangeInclusive<f64>,
        field: fn(&mut C) -> &mut f64,
    ) -> Self {
        Self::field(name, unit, values::number(range), |number| values::show_number(*number), field)
    }

    /// A whole number above 0.
    pub(super) fn count<T>(name: &'static str, field: fn(&mut C) -> &mut T) -> Self
    where
        T: std::str::FromStr + Default + PartialOrd + ToString + Clone + Send + Sync + 'static,
    {
        Self::field(name, "COUNT", values::count::<T>, T::to_string, field)
    }

    /// The default, as it would be given.
    pub(super) fn default(mut self, default: impl Fn(&mut C) -> String + 'static) -> Self {
        self.default = Some(Box::new(default));
        self
    }

    pub(super) fn help(mut self, help: &'static str) -> Self {
        self.arg = self.arg.help(help);
        self
    }

    pub(super) fn heading(mut self, heading: &'static str) -> Self {
        self.arg = self.arg.help_heading(heading);
        self
    }

    pub(super) fn short(mut self, short: char) -> Self {
        self.arg = self.arg.short(short);
        self
    }

    /// An option whose values have these names, one each.
    pub(super) fn value_names(mut self, names: &[&'static str]) -> Self {
        self.arg = self.arg.value_names(names.to_vec()).num_args(names.len()).action(ArgAction::Set);
        self
    }

    /// The values that are used where none is given.
    pub(super) fn derived(mut self, derived: fn(&mut C) -> Vec<String>) -> Self {
        self.derived = Some(Box::new(derived));
        self
    }

    fn within<W: 'static>(self, part: fn(&mut W) -> &mut C) -> Opt<W> {
        let Self { arg, set, default, derived } = self;
        Opt {
            arg,
            set: Box::new(move |whole, matches| set(part(whole), matches)),
            default: default.map(|default| show_within(default, part)),
            derived: derived.map(|derived| show_within(derived, part)),
        }
    }
}

fn show_within<C: 'static, W: 'static, T: 'static>(show: Show<C, T>, part: fn(&mut W) -> &mut C) -> Show<W, T> {
    Box::new(move |whole| show(part(whole)))
}

/// The options of a part as those of the whole that has it.
pub(super) fn within<C: 'static, W: 'static>(
    options: Vec<Opt<C>>,
    part: fn(&mut W) -> &mut C,
) -> impl Iterator<Item = Opt<W>> {
    options.into_iter().map(move |option| option.within(part))
}

/// The options of a part, as they were given.
#[derive(Clone)]
pub(super) struct Given<C>(ArgMatches, PhantomData<fn(C)>);

impl<C> fmt::Debug for Given<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Values may be secrets.
        f.write_str("Given(..)")
    }
}

impl<C: Part> Given<C> {
    /// Sets in `config` what was given, and reports what does not fit the rest.
    pub(super) fn apply(&self, config: &mut C, problems: &mut Problems) {
        for option in C::options() {
            problems.take(option.arg.get_id().as_str(), (option.set)(config, &self.0));
        }
    }
}

/// The values that options have in `config` without being given, by name.
pub(super) fn derived<C: Part>(config: &mut C) -> Vec<(String, Vec<String>)> {
    let of_option = |option: Opt<C>| Some((option.arg.get_id().to_string(), option.derived?(config)));
    C::options().into_iter().filter_map(of_option).collect()
}

impl<C: Part> Args for Given<C> {
    fn augment_args(command: Command) -> Command {
        let mut base = C::base();
        C::options().into_iter().fold(command, |command, Opt { mut arg, default, .. }| {
            if let Some(default) = default {
                arg = arg.default_value(default(&mut base));
            }
            command.arg(arg)
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<C: Part> FromArgMatches for Given<C> {
    fn from_arg_matches(matches: &ArgMatches) -> ClapResult<Self> {
        Ok(Self(matches.clone(), PhantomData))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> ClapResult<()> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// How values of an option are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// It is there or not.
    Switch,
    /// One value.
    One,
    /// Several.
    List,
}

pub(super) fn form(arg: &Arg) -> Form {
    match arg.get_action() {
        ArgAction::Append => Form::List,
        ArgAction::Set if arg.get_num_args().is_some_and(|count| count.max_values() > 1) => Form::List,
        ArgAction::Set => Form::One,
        _ => Form::Switch,
    }
}

/// What is wrong with a value of `arg`, in the words of its own check.
pub(super) fn check(arg: &Arg, value: &OsStr) -> Result<(), String> {
    if form(arg) == Form::Switch {
        let is_switch = value == "true" || value == "false";
        return if is_switch { Ok(()) } else { Err(format!("`{}` is neither true nor false", value.display())) };
    }
    let alone = Arg::new("value").num_args(1..).value_parser(arg.get_value_parser().clone());
    let alone = match arg.get_value_delimiter() {
        Some(delimiter) => alone.value_delimiter(delimiter),
        None => alone,
    };
    let parsed = Command::new("check").no_binary_name(true).arg(alone).try_get_matches_from([OsStr::new("--"), value]);
    parsed.map(drop).map_err(|error| match error.source() {
        Some(reason) => reason.to_string(),
        None => "it cannot be read: it is not UTF-8".to_owned(),
    })
}
