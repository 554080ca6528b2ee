//! What happens to the linked object: no panic may be left in it, and its debug sections go.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use object::{
    build::elf::{Builder, SectionData},
    elf,
};

use crate::sizes::{self, Size};

/// Checks the object and returns it without debug sections (BTF stays), and how large its programs are.
pub(crate) fn finish(raw: &[u8]) -> Result<(Vec<u8>, BTreeMap<String, Size>)> {
    let mut builder = Builder::read(raw).context("not an ELF object")?;
    refuse_panics(&builder)?;
    let programs = sizes::of(&builder).context("measuring the programs")?;

    for section in &mut builder.sections {
        let name = section.name.as_slice();
        // The address-significance table counts symbols, which are renumbered here; only linkers read it.
        let unneeded = [b".debug_".as_slice(), b".rel.debug_", b".llvm_addrsig"];
        section.delete = unneeded.iter().any(|start| name.starts_with(start));
    }
    builder.delete_orphans();
    name_sections_apart(&mut builder);
    builder.set_section_sizes();
    let mut stripped = Vec::new();
    builder.write(&mut stripped).context("stripping debug sections")?;
    Ok((stripped, programs))
}

/// LLVM keeps the names of sections and symbols in one table; the writer wants one each.
fn name_sections_apart(builder: &mut Builder<'_>) {
    if builder.sections.iter().any(|section| matches!(section.data, SectionData::SectionString)) {
        return;
    }
    let section = builder.sections.add();
    section.name = b".shstrtab".as_slice().into();
    section.sh_type = elf::SHT_STRTAB;
    section.sh_addralign = 1;
    section.data = SectionData::SectionString;
}

/// A panic in a kernel program means a check that the verifier can't see through, or a wrong result: it must be
/// impossible by construction, and then the compiler leaves nothing of it.
fn refuse_panics(builder: &Builder<'_>) -> Result<()> {
    let names = builder.symbols.iter().map(|symbol| String::from_utf8_lossy(symbol.name.as_slice()));
    let panics: Vec<_> = names.filter(|name| name.contains("9panicking")).collect();
    if !panics.is_empty() {
        bail!(
            "a panic is left in the kernel programs (an unchecked index, slice or arithmetic): {}",
            panics.join(", ")
        );
    }
    Ok(())
}
