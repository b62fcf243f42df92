//! `plan`: what a bundle would do, in lines, without doing any of it.

use std::path::PathBuf;

use lexopt::Arg;

use super::{Problem, print};
use crate::execute::sentence;
use crate::host::HostFacts;
use crate::id::ContainerId;
use crate::spec;

pub(super) fn plan(mut arguments: lexopt::Parser) -> Result<u8, Problem> {
    let (mut bundle, mut id) = (PathBuf::from("."), None);
    while let Some(argument) = arguments.next()? {
        match argument {
            Arg::Long("bundle") | Arg::Short('b') => bundle = arguments.value()?.into(),
            Arg::Value(text) if id.is_none() => id = Some(ContainerId::new(&text.to_string_lossy())?),
            other => return Err(other.unexpected().into()),
        }
    }
    let id = match id {
        Some(id) => id,
        None => ContainerId::new("example")?,
    };
    let failed = |error: &dyn std::error::Error| Problem::Failed(format!("failed to {}", sentence(error)));
    let loaded = spec::load(&bundle).map_err(|error| failed(&error))?;
    let facts = HostFacts::gather().map_err(|error| failed(&error))?;
    let plan = crate::plan::plan(&id, &loaded.spec, &facts).map_err(|error| failed(&error))?;
    print(&plan.to_string())
}
