//! The choices that tracks offer, as flags.

use clap::builder::{BoolishValueParser, PossibleValue, PossibleValuesParser};
use clap::{Arg, ArgAction, ArgMatches, Command};
use tollgate_service::{Choice, Choices, Track};

/// Which of the choices a command takes.
pub(crate) trait Offer {
    /// Whether it takes that one.
    fn takes(choice: &Choice) -> bool;
}

/// Those of `up`, `plan` and `rehearse`: all.
#[derive(Debug)]
pub(crate) struct Every;

impl Offer for Every {
    fn takes(_: &Choice) -> bool {
        true
    }
}

/// Those of `prepare`.
#[derive(Debug)]
pub(crate) struct InPrepare;

impl Offer for InPrepare {
    fn takes(choice: &Choice) -> bool {
        choice.prepares
    }
}

/// That of `reconcile provider-keys`.
#[derive(Debug)]
pub(crate) struct OfProviderKeys;

impl Offer for OfProviderKeys {
    fn takes(choice: &Choice) -> bool {
        *choice == tollgate_service::NAME_CONFLICTS
    }
}

/// What is done with rows that stand in the way.
#[derive(Debug)]
pub(crate) struct Chosen<O> {
    /// What was chosen.
    pub choices: Choices,
    offer: std::marker::PhantomData<O>,
}

/// Of `up`, `plan` and `rehearse`.
pub(crate) type Resolutions = Chosen<Every>;
/// Of `prepare`.
pub(crate) type Preparations = Chosen<InPrepare>;
/// Of `reconcile provider-keys`.
pub(crate) type NameConflicts = Chosen<OfProviderKeys>;

fn offered<O: Offer>() -> impl Iterator<Item = &'static Choice> {
    Track::every_choice().filter(|choice| O::takes(choice))
}

fn argument(choice: &'static Choice) -> Arg {
    let argument = Arg::new(choice.flag)
        .long(choice.flag)
        .env(choice.variable)
        .help(choice.about);
    match choice.word {
        Some((word, meaning)) => {
            argument
                .value_name("HOW")
                .value_parser(PossibleValuesParser::new([
                    PossibleValue::new(word).help(meaning)
                ]))
        }
        None => argument
            .action(ArgAction::SetTrue)
            .value_parser(BoolishValueParser::new()),
    }
}

impl<O: Offer> clap::Args for Chosen<O> {
    fn augment_args(command: Command) -> Command {
        command.args(offered::<O>().map(argument))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<O: Offer> clap::FromArgMatches for Chosen<O> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let choices = offered::<O>()
            .filter(|choice| match choice.word {
                Some(_) => matches.contains_id(choice.flag),
                None => matches.get_flag(choice.flag),
            })
            .fold(Choices::none(), |choices, choice| choices.with(choice));
        Ok(Self {
            choices,
            offer: std::marker::PhantomData,
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
