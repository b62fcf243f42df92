//! From JSON to the types beside this file: every property by name, every finding at once.
//!
//! serde stops at the first mistake, takes a list for an object and forgets what it does not know. So the
//! types are declared by [`object`] and [`names`], which make their [`Read`].

use std::collections::BTreeMap;
use std::fmt::Display;
use std::mem;
use std::path::PathBuf;

use serde_json::{Map, Value};

use super::{Finding, Findings};

/// Characters kept of a name or value of somebody's choice where a sentence repeats it.
const SHOWN: usize = 80;

/// What can be read from a value of a Spec.
pub trait Read: Sized {
    /// Whether it is written as a text: then an empty one stands for none, as Go's tools write it.
    const IS_TEXT: bool = false;

    /// Takes what it needs out of the value. `None` if it was refused; `notes` says why.
    fn read(value: &mut Value, notes: &mut Notes) -> Option<Self>;

    /// What a missing property or null stands for, if it may be missing.
    fn absent() -> Option<Self> {
        None
    }
}

/// What a reading has found so far. Pointers begin where it is: they grow on the way out, where something was found.
#[derive(Default)]
pub struct Notes {
    pub(super) refused: Findings,
    pub(super) ignored: Findings,
    pub(super) unknown: Findings,
}

/// What an object's type says of the properties that are no fields of it.
pub(crate) struct Others {
    /// Those that are.
    pub carried_out: &'static [&'static str],
    /// Not carried out, with what to do instead.
    pub refused: &'static [(&'static str, &'static str)],
    /// For another platform.
    pub elsewhere: &'static [&'static str],
}

impl Notes {
    /// Refuses the value that is being read.
    pub(crate) fn refuse<T>(&mut self, message: impl Into<String>) -> Option<T> {
        self.refused.add("", message);
        None
    }

    /// Says that something of the value is left out of account.
    pub(crate) fn warn(&mut self, message: impl Into<String>) {
        self.ignored.add("", message);
    }

    /// Does something one level further in.
    pub(crate) fn at<T>(&mut self, key: impl Display, read: impl FnOnce(&mut Notes) -> T) -> T {
        let known = self.lists().map(|findings| findings.len());
        let read = read(self);
        for (findings, known) in self.lists().into_iter().zip(known) {
            findings.move_below(&key, known);
        }
        read
    }

    fn lists(&mut self) -> [&mut Findings; 3] {
        [&mut self.refused, &mut self.ignored, &mut self.unknown]
    }

    /// The properties of an object, after a look at those that are no fields.
    pub(crate) fn object<'a>(
        &mut self,
        value: &'a mut Value,
        others: &Others,
    ) -> Option<&'a mut Map<String, Value>> {
        let Value::Object(properties) = value else {
            return self.refuse(format!("{} stands where an object belongs", shown(value)));
        };
        for (key, value) in properties.iter().filter(|(key, _)| !others.carried_out.contains(&key.as_str())) {
            match others.refused.iter().find(|(name, _)| name == key) {
                Some((_, advice)) if !asks_for_nothing(value) => self.at(key, |notes| {
                    notes.refuse::<()>(*advice);
                }),
                Some(_) => {}
                None if others.elsewhere.contains(&key.as_str()) => {}
                None => self.at(segment(key), |notes| {
                    notes.unknown.add("", "unknown property, ignored");
                }),
            }
        }
        Some(properties)
    }

    /// One property of an object.
    pub(crate) fn property<T: Read>(&mut self, properties: &mut Map<String, Value>, name: &str) -> Option<T> {
        match properties.get_mut(name) {
            None | Some(Value::Null) => {
                T::absent().or_else(|| self.at(name, |notes| notes.refuse("it is missing")))
            }
            Some(value) => self.at(name, |notes| T::read(value, notes)),
        }
    }

    /// The value whose name this is.
    pub(crate) fn one_of<T: Copy>(&mut self, value: &Value, names: &[(&str, T)]) -> Option<T> {
        let found = names.iter().find(|(name, _)| value.as_str() == Some(name));
        found.map(|(_, named)| *named).or_else(|| {
            let known: Vec<&str> = names.iter().map(|(name, _)| *name).collect();
            self.refuse(format!("{} is unknown here: give one of {}", shown(value), known.join(", ")))
        })
    }
}

/// A property that is not carried out may be written down all the same, if it asks for nothing.
fn asks_for_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        // -1 is how limits say "none".
        Value::Number(number) => matches!(number.as_i64(), Some(0 | -1)),
        Value::String(text) => text.is_empty(),
        Value::Array(values) => values.is_empty(),
        Value::Object(properties) => properties.is_empty(),
    }
}

/// A value as a sentence repeats it: on one line and not too long.
pub(crate) fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

/// A name of somebody's choice as a part of a JSON pointer (RFC 6901), not too long.
pub(crate) fn segment(key: &str) -> String {
    key.chars().take(SHOWN).collect::<String>().replace('~', "~0").replace('/', "~1")
}

impl Read for bool {
    fn read(value: &mut Value, notes: &mut Notes) -> Option<bool> {
        value.as_bool().or_else(|| notes.refuse(format!("{} is neither true nor false", shown(value))))
    }

    fn absent() -> Option<bool> {
        Some(false)
    }
}

impl Read for String {
    const IS_TEXT: bool = true;

    fn read(value: &mut Value, notes: &mut Notes) -> Option<String> {
        match value {
            Value::String(text) if text.contains('\0') => {
                notes.refuse(format!("{} holds a NUL, which no system call passes on", shown(value)))
            }
            Value::String(text) => Some(mem::take(text)),
            other => notes.refuse(format!("{} is no text", shown(other))),
        }
    }
}

impl Read for PathBuf {
    const IS_TEXT: bool = true;

    fn read(value: &mut Value, notes: &mut Notes) -> Option<PathBuf> {
        String::read(value, notes).map(PathBuf::from)
    }
}

macro_rules! integers {
    ($($integer:ty),*) => { $(
        impl Read for $integer {
            fn read(value: &mut Value, notes: &mut Notes) -> Option<$integer> {
                let number = value.as_i64().map(i128::from).or_else(|| value.as_u64().map(i128::from));
                number.and_then(|number| number.try_into().ok()).or_else(|| {
                    let (value, least, most) = (shown(value), <$integer>::MIN, <$integer>::MAX);
                    notes.refuse(format!("{value} is no whole number from {least} to {most}"))
                })
            }
        }
    )* };
}

integers!(u16, u32, u64, i32, i64, usize);

impl<T: Read> Read for Option<T> {
    fn read(value: &mut Value, notes: &mut Notes) -> Option<Option<T>> {
        let is_empty_text = T::IS_TEXT && value.as_str() == Some("");
        if is_empty_text { Some(None) } else { T::read(value, notes).map(Some) }
    }

    fn absent() -> Option<Option<T>> {
        Some(None)
    }
}

impl<T: Read> Read for Vec<T> {
    fn read(value: &mut Value, notes: &mut Notes) -> Option<Vec<T>> {
        let Value::Array(values) = value else {
            return notes.refuse(format!("{} stands where a list belongs", shown(value)));
        };
        let read = |(index, value)| notes.at(index, |notes| T::read(value, notes));
        // All of them, so that every finding is made, and only then a look at whether one was refused.
        let read: Vec<Option<T>> = values.iter_mut().enumerate().map(read).collect();
        read.into_iter().collect()
    }

    fn absent() -> Option<Vec<T>> {
        Some(Vec::new())
    }
}

impl<T: Read> Read for BTreeMap<String, T> {
    fn read(value: &mut Value, notes: &mut Notes) -> Option<BTreeMap<String, T>> {
        let Value::Object(values) = value else {
            return notes.refuse(format!("{} stands where an object belongs", shown(value)));
        };
        let read = |(key, value): (&String, &mut Value)| {
            let read = |notes: &mut Notes| match key.contains('\0') {
                true => notes.refuse("its name holds a NUL, which no system call passes on"),
                false => T::read(value, notes),
            };
            Some((key.clone(), notes.at(segment(key), read)?))
        };
        let read: Vec<Option<(String, T)>> = values.iter_mut().map(read).collect();
        read.into_iter().collect()
    }

    fn absent() -> Option<BTreeMap<String, T>> {
        Some(BTreeMap::new())
    }
}

/// Reads a value by itself, such as one section of a Spec.
///
/// # Errors
///
/// Everything that is wrong with it.
pub fn read<T: Read>(value: &Value) -> Result<T, Vec<Finding>> {
    let mut notes = Notes::default();
    let read = T::read(&mut value.clone(), &mut notes);
    match (read, notes.refused.into_list()) {
        (Some(read), refused) if refused.is_empty() => Ok(read),
        (_, refused) => Err(refused),
    }
}

/// Declares objects: `field: Type = "property"` for what is carried out, and then the names that are
/// refused, each with what to do instead, and those that are for other platforms. `Name: Default` may be
/// missing, and is then as if it were `{}`.
macro_rules! object {
    (
        $(#[$about:meta])* $name:ident $(: $default:ident)? {
            $($(#[$about_field:meta])* $field:ident: $type:ty = $property:literal,)*
        }
        $(refused { $($refused:literal: $advice:expr,)* })?
        $(elsewhere { $($elsewhere:literal),* })?
    ) => {
        $(#[$about])*
        #[derive(Debug, Clone, PartialEq, Eq $(, $default)?)]
        pub struct $name { $($(#[$about_field])* pub(crate) $field: $type,)* }

        impl $crate::spec::Read for $name {
            fn read(value: &mut serde_json::Value, notes: &mut $crate::spec::Notes) -> Option<Self> {
                let others = $crate::spec::Others {
                    carried_out: &[$($property),*],
                    refused: &[$($(($refused, $advice)),*)?],
                    elsewhere: &[$($($elsewhere),*)?],
                };
                let properties = notes.object(value, &others)?;
                // Each is read before one that was refused ends it.
                $(let $field = notes.property(properties, $property);)*
                Some($name { $($field: $field?,)* })
            }

            $(fn absent() -> Option<Self> {
                Some(<$name as $default>::default())
            })?
        }
    };
}

/// Declares enumerations: `Member = "name"`, or several names.
macro_rules! names {
    ($(#[$about:meta])* $name:ident { $($member:ident = $first:literal $(| $more:literal)*,)* }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name {
            $(#[doc = concat!("`", $first, "`.")] $member,)*
        }

        impl $crate::spec::Read for $name {
            const IS_TEXT: bool = true;

            fn read(value: &mut serde_json::Value, notes: &mut $crate::spec::Notes) -> Option<Self> {
                notes.one_of(value, &[$(($first, $name::$member), $(($more, $name::$member),)*)*])
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                out.write_str(match self { $($name::$member => $first,)* })
            }
        }
    };
}

pub(crate) use {names, object};
