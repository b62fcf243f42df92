//! What a program of the host needs to run elsewhere: its interpreter and the libraries it names.
//!
//! Only the few fields for that are read, of 64-bit little-endian files; the rest of a file may be
//! anything. Layout: `elf(5)`.

/// What was read from one ELF file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// The dynamic linker; none for a static program or a library.
    pub interpreter: Option<String>,
    /// File names of libraries.
    pub libraries: Vec<String>,
    /// Directories where it wants them looked for, `$ORIGIN` not replaced.
    pub search: Vec<String>,
    /// What others call it that need it, if it is a library.
    pub name: Option<String>,
}

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
const DT_NULL: u64 = 0;
const DT_NEEDED: u64 = 1;
const DT_STRTAB: u64 = 5;
const DT_SONAME: u64 = 14;
const DT_RPATH: u64 = 15;
const DT_RUNPATH: u64 = 29;

/// Bytes of one entry of the dynamic section.
const DYNAMIC_ENTRY: usize = 16;

struct Segment {
    kind: u32,
    offset: usize,
    address: u64,
    size: usize,
}

/// Reads the name of a program's dynamic linker, which stands near the file's beginning; the rest need not be there.
pub fn interpreter(file: &[u8]) -> Option<String> {
    text(file, segments(file)?.iter().find(|segment| segment.kind == PT_INTERP)?.offset)
}

/// Reads what a file needs; `None` if it is no 64-bit little-endian ELF file.
pub fn read(file: &[u8]) -> Option<Needs> {
    let segments = segments(file)?;
    let mut needs = Needs { interpreter: interpreter(file), ..Needs::default() };
    let dynamic = segments.iter().find(|segment| segment.kind == PT_DYNAMIC);
    let Some(dynamic) = dynamic else { return Some(needs) };
    let entries = entries(file, dynamic)?;
    let strings = entries.iter().find(|(tag, _)| *tag == DT_STRTAB).map(|(_, address)| *address)?;
    let strings = file_offset(&segments, strings)?;
    for (tag, value) in entries {
        let at = strings.checked_add(usize::try_from(value).ok()?)?;
        match tag {
            DT_NEEDED => needs.libraries.push(text(file, at)?),
            DT_SONAME => needs.name = Some(text(file, at)?),
            DT_RPATH | DT_RUNPATH => needs.search.extend(text(file, at)?.split(':').map(str::to_owned)),
            _ => {}
        }
    }
    Some(needs)
}

fn segments(file: &[u8]) -> Option<Vec<Segment>> {
    if file.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let start = usize::try_from(u64_at(file, 32)?).ok()?;
    let (size, count) = (usize::from(u16_at(file, 54)?), usize::from(u16_at(file, 56)?));
    let segment = |number: usize| {
        let at = start.checked_add(number.checked_mul(size)?)?;
        Some(Segment {
            kind: u32_at(file, at)?,
            offset: usize::try_from(u64_at(file, at.checked_add(8)?)?).ok()?,
            address: u64_at(file, at.checked_add(16)?)?,
            size: usize::try_from(u64_at(file, at.checked_add(32)?)?).ok()?,
        })
    };
    (0..count).map(segment).collect()
}

fn entries(file: &[u8], dynamic: &Segment) -> Option<Vec<(u64, u64)>> {
    let section = file.get(dynamic.offset..dynamic.offset.checked_add(dynamic.size)?)?;
    let entry = |bytes: &[u8]| Some((u64_at(bytes, 0)?, u64_at(bytes, 8)?));
    let entries = section.chunks_exact(DYNAMIC_ENTRY).map(entry);
    Some(entries.take_while(|entry| entry.is_some_and(|(tag, _)| tag != DT_NULL)).flatten().collect())
}

/// Where in the file lies what will be at an address.
fn file_offset(segments: &[Segment], address: u64) -> Option<usize> {
    segments.iter().filter(|segment| segment.kind == PT_LOAD).find_map(|segment| {
        let within = usize::try_from(address.checked_sub(segment.address)?).ok()?;
        if within < segment.size { segment.offset.checked_add(within) } else { None }
    })
}

fn text(file: &[u8], at: usize) -> Option<String> {
    let bytes = file.get(at..)?.split(|byte| *byte == 0).next()?;
    String::from_utf8(bytes.to_vec()).ok()
}

fn u16_at(file: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(file.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn u32_at(file: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(file.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn u64_at(file: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(file.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_program_names_its_interpreter_and_libraries() {
        let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let needs = read(&program).unwrap();
        assert!(needs.interpreter.as_ref().unwrap().contains("ld-"));
        assert_eq!(interpreter(&program[..4096]), needs.interpreter);
        assert!(needs.libraries.iter().any(|name| name.starts_with("libc.so")), "{:?}", needs.libraries);
    }

    #[test]
    fn what_is_cut_or_no_program_needs_nothing_and_does_not_panic() {
        let program = std::fs::read("/bin/sh").unwrap();
        for length in [0, 5, 6, 63, 64, 100, 500] {
            let cut = &program[..length.min(program.len())];
            assert!(read(cut).is_none_or(|needs| needs.libraries.is_empty()), "{length}");
        }
        assert_eq!(read(b"#!/bin/sh\n"), None);
    }
}
