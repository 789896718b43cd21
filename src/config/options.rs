//! Declaration of options, each in one place: name, field of a part's configuration that it sets, and help. The default
//! is the field's value in the part's own configuration; the name of the variable is derived (`environment`).

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

/// Part of the program that is configured by options.
pub(super) trait Part: Sized + 'static {
    /// Configuration without any options: their defaults.
    fn base() -> Self;

    /// Options of the part, in the order in which they are shown and applied.
    fn options() -> Vec<Opt<Self>>;
}

type Set<C> = Box<dyn Fn(&mut C, &ArgMatches) -> Result<(), String>>;

/// Derives a `T` from a `C`.
type Show<C, T> = Box<dyn Fn(&mut C) -> T>;

/// Option that sets something in a `C`.
pub(super) struct Opt<C> {
    arg: Arg,
    set: Set<C>,
    /// Default, in the form of the command line.
    default: Option<Show<C, String>>,
    /// Values used where none is given, derived from something else, such as the network.
    derived: Option<Show<C, Vec<String>>>,
}

impl<C: 'static> Opt<C> {
    fn new(arg: Arg, set: Set<C>) -> Self {
        Self { arg, set, default: None, derived: None }
    }

    /// Switch.
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

    /// Option with a value that may contradict the rest of the configuration.
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

    /// Option with a value that is valid on its own.
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

    /// Option that may be given several times; `delimiter` separates several values in one.
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

    /// Option that sets a field, whose value is the default.
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

    /// Option with a path.
    pub(super) fn path(name: &'static str, unit: &'static str, set: fn(&mut C, PathBuf)) -> Self {
        let mut option = Self::optional(name, unit, |text: &str| Ok(PathBuf::from(text)), set);
        // Paths need not be UTF-8.
        option.arg = option.arg.value_parser(clap::value_parser!(PathBuf));
        option
    }

    /// Option with a duration in seconds.
    pub(super) fn seconds(
        name: &'static str,
        range: std::ops::RangeInclusive<f64>,
        field: fn(&mut C) -> &mut Duration,
    ) -> Self {
        Self::field(name, "SECONDS", values::seconds(range), |time| values::show_number(time.as_secs_f64()), field)
    }

    /// Option with a number in `range`.
    pub(super) fn number(
        name: &'static str,
        unit: &'static str,
        range: std::ops::RangeInclusive<f64>,
        field: fn(&mut C) -> &mut f64,
    ) -> Self {
        Self::field(name, unit, values::number(range), |number| values::show_number(*number), field)
    }

    /// Option with a whole number above 0.
    pub(super) fn count<T>(name: &'static str, field: fn(&mut C) -> &mut T) -> Self
    where
        T: std::str::FromStr + Default + PartialOrd + ToString + Clone + Send + Sync + 'static,
    {
        Self::field(name, "COUNT", values::count::<T>, T::to_string, field)
    }

    /// Sets the default, in the form of the command line.
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

    /// Requires one value for each of these names.
    pub(super) fn value_names(mut self, names: &[&'static str]) -> Self {
        self.arg = self.arg.value_names(names.to_vec()).num_args(names.len()).action(ArgAction::Set);
        self
    }

    /// Sets the values used where none is given.
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

/// Lifts the options of a part to those of the whole that contains it.
pub(super) fn within<C: 'static, W: 'static>(
    options: Vec<Opt<C>>,
    part: fn(&mut W) -> &mut C,
) -> impl Iterator<Item = Opt<W>> {
    options.into_iter().map(move |option| option.within(part))
}

/// Parsed options of a part.
#[derive(Clone)]
pub(super) struct Given<C>(ArgMatches, PhantomData<fn(C)>);

impl<C> fmt::Debug for Given<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Values may be secrets.
        f.write_str("Given(..)")
    }
}

impl<C: Part> Given<C> {
    /// Applies the options to `config`, and reports those that contradict the rest.
    pub(super) fn apply(&self, config: &mut C, problems: &mut Problems) {
        for option in C::options() {
            problems.take(option.arg.get_id().as_str(), (option.set)(config, &self.0));
        }
    }
}

/// Returns the derived values of options in `config`, by name.
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

/// Form of an option's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// No value: present or not.
    Switch,
    /// One value.
    One,
    /// Several values.
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

/// Checks a value with the parser of `arg`; the error is the parser's own.
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
        None => "not UTF-8".to_owned(),
    })
}
