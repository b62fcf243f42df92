//! `docker-worker features`: what a task can have beside its command.

use std::process::ExitCode;

use clap::Args;

use super::operator::Operator;
use super::output;
use crate::config::Config;
use crate::known_features::{
    FEATURE_NAMES, KNOWN_FEATURES, KnownFeature, Reserved, Support, cache_artifact, find,
};
use crate::suggestion::did_you_mean;

/// Options of `features`.
#[derive(Debug, Args)]
pub struct FeaturesArguments {
    /// Only this one, with all there is to know of it.
    #[arg(value_name = "NAME", value_parser = feature)]
    pub name: Option<&'static KnownFeature>,
}

fn feature(name: &str) -> Result<&'static KnownFeature, String> {
    find(name).ok_or_else(|| did_you_mean(name, &FEATURE_NAMES))
}

/// Prints the table, or one row of it in full.
pub(super) fn main(options: &FeaturesArguments, config: &Config, operator: &Operator) -> ExitCode {
    let text = match options.name {
        Some(feature) => one(feature, config),
        None => KNOWN_FEATURES.iter().map(|feature| line(feature, config)).collect(),
    };
    output::print(&text, ExitCode::SUCCESS, operator)
}

fn line(feature: &KnownFeature, config: &Config) -> String {
    format!("{:<20} {:<12} {}\n", feature.name, state(feature, config), feature.summary)
}

/// What becomes of a task that does not mention it, or why none can have it.
fn state(feature: &KnownFeature, config: &Config) -> &'static str {
    match feature.support {
        Support::Gone(_) => "gone",
        Support::NotYet => "not yet",
        Support::Here if config.file.is_disabled(feature.name) => "disabled",
        Support::Here if feature.on_by_default => "on",
        Support::Here => "off",
    }
}

fn one(feature: &KnownFeature, config: &Config) -> String {
    let default = if feature.on_by_default { "on" } else { "off" };
    let here = match feature.support {
        Support::Here if config.file.is_disabled(feature.name) => "disabled by the configuration",
        Support::Here => "works",
        Support::NotYet => "is not there yet: a task that asks for it is refused",
        Support::Gone(_) => "has lost its meaning: a task that asks for it gets a warning",
    };
    let reserved: Vec<String> = feature.reserved.iter().map(|reserved| reserved_name(*reserved)).collect();
    let mut rows = vec![
        ("state", here.to_owned()),
        ("default", default.to_owned()),
        ("scope", feature.scope.unwrap_or("none").to_owned()),
    ];
    if feature.support == Support::Here {
        rows.push(("switch", feature.switch()));
    }
    if !feature.settings.is_empty() {
        rows.push(("settings", feature.settings.join(", ")));
    }
    if !reserved.is_empty() {
        rows.push(("artifacts", reserved.join(", ")));
    }
    let mut text = format!("{}: {}\n\n", feature.name, feature.summary);
    for (name, value) in rows {
        text += &format!("{name:<10} {value}\n");
    }
    text
}

fn reserved_name(reserved: Reserved) -> String {
    match reserved {
        Reserved::LiveLog => "the payload's log".to_owned(),
        Reserved::BackingLog => "the payload's log with _backing".to_owned(),
        Reserved::Always(name, _) => name.to_owned(),
        Reserved::Caches => cache_artifact("NAME"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ConfigFile;
    use crate::directories::Directories;
    use crate::known_features::BULK_LOG;

    fn config(text: &str) -> Config {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("config.yml");
        std::fs::write(&path, text).unwrap();
        let directories = Directories { data: "/d".into(), run: "/r".into(), volume_caches: None };
        Config { directories, file: ConfigFile::read(&path).unwrap() }
    }

    #[test]
    fn one_feature_is_told_in_full() {
        let text = one(&BULK_LOG, &config(""));
        let expected = "bulkLog: the log as `public/logs/terminal_bulk.log.gz`\n\n\
                        state      works\ndefault    off\nscope      none\nswitch     features.bulkLog.enabled\n\
                        settings   limits.log\nartifacts  public/logs/terminal_bulk.log.gz\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn the_table_says_what_becomes_of_a_task_that_does_not_mention_it() {
        let config = config("features: {bulkLog: {enabled: false}}");
        for (name, expected) in
            [("localLiveLog", "on"), ("bulkLog", "disabled"), ("dind", "not yet"), ("azureLiveLog", "gone")]
        {
            assert_eq!(state(find(name).unwrap(), &config), expected, "{name}");
        }
    }
}
