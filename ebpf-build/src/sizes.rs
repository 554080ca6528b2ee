//! How large programs are: their instructions, and the stack of the longest chain of calls that begins in them.
//!
//! The kernel gives a chain 512 bytes and rounds every frame up, to 32 bytes without its JIT or before Linux 6.8 and to 16
//! since, at least once; here to 32. A tail call and a helper take none of it.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use object::{
    build::elf::{Builder, SectionData, SectionId, Symbol},
    elf,
};

/// Bytes of an instruction (RFC 9669, section 3).
const INSTRUCTION: usize = 8;
/// What a frame is rounded up to.
const FRAME: u32 = 32;

/// A program's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Size {
    /// Instructions of the program itself, without functions that it calls.
    pub instructions: u32,
    /// Bytes of stack of the longest chain of calls, each frame rounded up.
    pub stack: u32,
}

/// What programs may have at most: hooks' programs, which every packet meets, and stages, which few do.
const CEILINGS: [(bool, Size); 2] =
    [(false, Size { instructions: 5_000, stack: 320 }), (true, Size { instructions: 7_000, stack: 384 })];

/// Fails where a program is larger than its kind may be; names the program and the number.
///
/// # Errors
/// One is.
pub fn check(sizes: &BTreeMap<String, Size>) -> Result<()> {
    for (name, size) in sizes {
        let is_stage = name.starts_with("stage_");
        let (_, most) = CEILINGS[usize::from(is_stage)];
        for (what, has, most) in [
            ("instructions", size.instructions, most.instructions),
            ("bytes of stack", size.stack, most.stack),
        ] {
            if has > most {
                let remedy = "leave what few packets need to a stage, or split the stage";
                bail!("program {name} has {has} {what}, more than {most}: {remedy}");
            }
        }
    }
    Ok(())
}

/// A function: where it is and what it does to the stack.
#[derive(Debug, Default)]
struct Function {
    name: String,
    instructions: u32,
    frame: u32,
    /// Functions that it calls, or gives a helper to call.
    calls: Vec<usize>,
    is_program: bool,
}

/// Sizes of all programs of an object.
pub(crate) fn of(builder: &Builder<'_>) -> Result<BTreeMap<String, Size>> {
    let symbols: Vec<&Symbol<'_>> =
        builder.symbols.iter().filter(|symbol| symbol.st_info & 0xf == elf::STT_FUNC).collect();
    let functions: Vec<Function> =
        symbols.iter().map(|symbol| function(builder, &symbols, symbol)).collect::<Result<_>>()?;
    let programs = functions.iter().filter(|function| function.is_program);
    let size = |function: &Function| Size {
        instructions: function.instructions,
        stack: chain(&functions, function),
    };
    Ok(programs.map(|function| (function.name.clone(), size(function))).collect())
}

/// The kernel refuses recursion, and so the object has none.
fn chain(functions: &[Function], function: &Function) -> u32 {
    let below = function.calls.iter().map(|&callee| chain(functions, &functions[callee])).max();
    function.frame.max(1).next_multiple_of(FRAME) + below.unwrap_or(0)
}

fn function(builder: &Builder<'_>, all: &[&Symbol<'_>], symbol: &Symbol<'_>) -> Result<Function> {
    let name = String::from_utf8_lossy(symbol.name.as_slice()).into_owned();
    let id = symbol.section.with_context(|| format!("function {name} is in no section"))?;
    let section = builder.sections.get(id);
    let SectionData::Data(bytes) = &section.data else { bail!("function {name} has no instructions") };
    let start = symbol.st_value as usize;
    let code = bytes.as_slice().get(start..start + symbol.st_size as usize);
    let code = code.with_context(|| format!("function {name} goes beyond its section"))?;
    let mut calls = Vec::new();
    for (offset, target) in targets(builder, id, bytes.as_slice()) {
        if (start..start + code.len()).contains(&offset) {
            let callee = all
                .iter()
                .position(|other| (other.section, other.st_value) == (Some(target.0), target.1 as u64));
            calls.push(callee.with_context(|| format!("function {name} calls what is no function"))?);
        }
    }
    Ok(Function {
        name,
        instructions: (code.len() / INSTRUCTION) as u32,
        frame: frame(code),
        calls,
        is_program: section.name.as_slice() != b".text",
    })
}

/// Calls and addresses of functions in a section: the offset of each, and the section and offset of what it leads to.
fn targets(builder: &Builder<'_>, id: SectionId, code: &[u8]) -> Vec<(usize, (SectionId, usize))> {
    const CALL: u8 = 0x85;
    const LOAD_WIDE: u8 = 0x18;
    let relocations = builder.sections.iter().filter(|section| section.sh_info_section == Some(id));
    let relocations = relocations.filter_map(|section| match &section.data {
        SectionData::Relocation(relocations) => Some(relocations),
        _ => None,
    });
    let mut found = Vec::new();
    for relocation in relocations.flatten() {
        let offset = relocation.r_offset as usize;
        let Some(&[opcode, _, _, _, a, b, c, d]) = code.get(offset..offset + INSTRUCTION) else { continue };
        let Some(symbol) = relocation.symbol.map(|symbol| builder.symbols.get(symbol)) else { continue };
        let Some(section) = symbol.section else { continue };
        if builder.sections.get(section).sh_flags & u64::from(elf::SHF_EXECINSTR) == 0 {
            continue;
        }
        // A call counts instructions from the next one on, a wide load bytes.
        let immediate = i32::from_le_bytes([a, b, c, d]);
        let beside = match opcode {
            CALL => (immediate + 1) * INSTRUCTION as i32,
            LOAD_WIDE => immediate,
            _ => continue,
        };
        found.push((offset, (section, (symbol.st_value as i64 + i64::from(beside)) as usize)));
    }
    found
}

/// Bytes below the frame pointer (register 10) that a function reaches.
fn frame(code: &[u8]) -> u32 {
    const POINTER: u8 = 10;
    const MOVE: u8 = 0xbf;
    const ADD: u8 = 0x07;
    let mut deepest = 0;
    // Registers that hold the frame pointer itself.
    let mut holds = [false; 16];
    holds[usize::from(POINTER)] = true;
    for instruction in code.chunks_exact(INSTRUCTION) {
        let &[opcode, registers, a, b, c, d, e, f] = instruction else { continue };
        let (to, from) = (usize::from(registers & 0xf), usize::from(registers >> 4));
        let (offset, immediate) = (i16::from_le_bytes([a, b]), i32::from_le_bytes([c, d, e, f]));
        let class = opcode & 0x07;
        let depth = match class {
            // LDX reads by its source; ST and STX write by their destination.
            1 if holds[from] => -i32::from(offset),
            2 | 3 if holds[to] => -i32::from(offset),
            _ if opcode == ADD && holds[to] => -immediate,
            _ => 0,
        };
        deepest = deepest.max(depth);
        if to != usize::from(POINTER) && !matches!(class, 2 | 3 | 5 | 6) {
            holds[to] = opcode == MOVE && holds[from];
        }
    }
    deepest as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_as_deep_as_what_is_read_written_or_pointed_to() {
        let read = [0x79, 0xa1, 0xf8, 0xff, 0, 0, 0, 0];
        let write = [0x7b, 0x1a, 0xe0, 0xff, 0, 0, 0, 0];
        let pointer = [0xbf, 0xa2, 0, 0, 0, 0, 0, 0, 0x07, 0x02, 0, 0, 0xc0, 0xff, 0xff, 0xff];
        let other = [0x07, 0x02, 0, 0, 0x00, 0xff, 0xff, 0xff];
        assert_eq!(frame(&read), 8);
        assert_eq!(frame(&[read, write].concat()), 32);
        assert_eq!(
            frame(&[&pointer[..], &other].concat()),
            64,
            "what is added to anything else counts for nothing"
        );
    }

    #[test]
    fn a_chain_is_its_frames_rounded_up_along_the_deepest_way() {
        let function =
            |frame, calls: &[usize]| Function { frame, calls: calls.to_vec(), ..Function::default() };
        let all = [function(100, &[1, 2]), function(40, &[]), function(8, &[3]), function(1, &[])];
        assert_eq!(chain(&all, &all[0]), 128 + 64);
        assert_eq!(chain(&all, &all[2]), 32 + 32);
    }

    #[test]
    fn a_program_above_its_ceiling_is_named_with_what_helps() {
        let size = |stack| Size { instructions: 100, stack };
        let sizes = |name: &str, stack| BTreeMap::from([(name.to_owned(), size(stack))]);
        check(&sizes("uplink_ingress", 320)).unwrap();
        check(&sizes("stage_begin", 384)).unwrap();
        let error = check(&sizes("uplink_ingress", 352)).unwrap_err();
        let said = "program uplink_ingress has 352 bytes of stack, more than 320";
        assert!(error.to_string().starts_with(said), "{error}");
    }
}
