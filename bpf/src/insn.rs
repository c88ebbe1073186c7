//! eBPF instructions as values, and a small assembler with labels.
//!
//! What the kernel's `Documentation/bpf/standardization/instruction-set.rst` describes, as far as an XDP program
//! that parses headers needs it: loads and stores, arithmetic, jumps, calls of helpers, byte swaps, and 64-bit immediates.

#![forbid(unsafe_code)]

use alloc::vec::Vec;
use core::fmt;

const CLASS_LD: u8 = 0;
const CLASS_LDX: u8 = 1;
const CLASS_ST: u8 = 2;
const CLASS_STX: u8 = 3;
const CLASS_ALU: u8 = 4;
const CLASS_JMP: u8 = 5;
const CLASS_ALU64: u8 = 7;
const MODE_IMM: u8 = 0x00;
const MODE_MEM: u8 = 0x60;
const FROM_REG: u8 = 0x08;
const OP_END: u8 = 0xd0;
const OP_GOTO: u8 = 0x00;
const OP_CALL: u8 = 0x80;
const OP_EXIT: u8 = 0x90;
const LOAD_U64: u8 = CLASS_LD | MODE_IMM | Size::Double as u8;
const PSEUDO_MAP_FD: u8 = 1;

/// One instruction, laid out as the kernel's `struct bpf_insn`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Insn {
    /// Class, operation and source of the operand.
    pub code: u8,
    /// Two registers, four bits each, in the order of the machine's bit fields: read with [`dst`](Self::dst), [`src`](Self::src).
    pub regs: u8,
    /// Offset: in bytes of a memory access, in instructions of a jump (0 is the next one).
    pub off: i16,
    /// Immediate operand, helper number, or half of a 64-bit one.
    pub imm: i32,
}
const _: () = assert!(size_of::<Insn>() == 8, "as struct bpf_insn");

/// A register. R0 is the result, R1 to R5 are arguments and lost by a call, R6 to R9 survive it, R10 is the frame.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Reg {
    R0,
    R1,
    R2,
    R3,
    R4,
    R5,
    R6,
    R7,
    R8,
    R9,
    R10,
}

/// How many bytes a load or a store moves. A narrow load clears the rest of the register.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Size {
    /// Four bytes.
    Word = 0x00,
    /// Two bytes.
    Half = 0x08,
    /// One byte.
    Byte = 0x10,
    /// Eight bytes.
    Double = 0x18,
}

/// An arithmetic operation: `dst = dst op operand`; `Mov` is `dst = operand`.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Alu {
    Add = 0x00,
    Sub = 0x10,
    Mul = 0x20,
    Or = 0x40,
    And = 0x50,
    /// Shift left.
    Lsh = 0x60,
    /// Shift right, filling with zeros.
    Rsh = 0x70,
    Xor = 0xa0,
    Mov = 0xb0,
}

/// A condition of a jump, unsigned, over all 64 bits; an immediate is sign-extended first.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cond {
    /// `==`
    Eq = 0x10,
    /// `>`
    Gt = 0x20,
    /// `>=`
    Ge = 0x30,
    /// `&`: a common bit is set.
    Set = 0x40,
    /// `!=`
    Ne = 0x50,
    /// `<`
    Lt = 0xa0,
    /// `<=`
    Le = 0xb0,
}

/// The second operand of arithmetic and of conditions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operand {
    /// A register.
    Reg(Reg),
    /// An immediate, sign-extended to the operation's width.
    Imm(i32),
}

impl From<Reg> for Operand {
    fn from(reg: Reg) -> Self {
        Self::Reg(reg)
    }
}

impl From<i32> for Operand {
    fn from(imm: i32) -> Self {
        Self::Imm(imm)
    }
}

impl Insn {
    /// `dst = dst op operand`, on 64 bits.
    pub fn alu(op: Alu, dst: Reg, operand: impl Into<Operand>) -> Self {
        Self::with_operand(CLASS_ALU64 | op as u8, dst, operand.into())
    }

    /// `dst = dst op operand`, on the low 32 bits; the high ones become 0.
    pub fn alu32(op: Alu, dst: Reg, operand: impl Into<Operand>) -> Self {
        Self::with_operand(CLASS_ALU | op as u8, dst, operand.into())
    }

    /// `dst = operand`.
    pub fn mov(dst: Reg, operand: impl Into<Operand>) -> Self {
        Self::alu(Alu::Mov, dst, operand)
    }

    /// The low 16 bits of `dst` from network order to this machine's, or back; the others become 0.
    pub const fn swap_be16(dst: Reg) -> Self {
        Self::new(CLASS_ALU | OP_END | FROM_REG, dst as u8, 0, 0, 16)
    }

    /// `dst = *(src + off)`.
    pub const fn load(size: Size, dst: Reg, src: Reg, off: i16) -> Self {
        Self::new(CLASS_LDX | MODE_MEM | size as u8, dst as u8, src as u8, off, 0)
    }

    /// `*(dst + off) = src`.
    pub const fn store(size: Size, dst: Reg, off: i16, src: Reg) -> Self {
        Self::new(CLASS_STX | MODE_MEM | size as u8, dst as u8, src as u8, off, 0)
    }

    /// `*(dst + off) = imm`.
    pub const fn store_imm(size: Size, dst: Reg, off: i16, imm: i32) -> Self {
        Self::new(CLASS_ST | MODE_MEM | size as u8, dst as u8, 0, off, imm)
    }

    /// Goes on `off` instructions after the next one.
    pub const fn goto(off: i16) -> Self {
        Self::new(CLASS_JMP | OP_GOTO, 0, 0, off, 0)
    }

    /// Goes on `off` instructions after the next one if `dst cond operand`.
    pub fn jump(cond: Cond, dst: Reg, operand: impl Into<Operand>, off: i16) -> Self {
        Self { off, ..Self::with_operand(CLASS_JMP | cond as u8, dst, operand.into()) }
    }

    /// Calls a kernel helper by its number (`BPF_FUNC_*`).
    pub const fn call(helper: i32) -> Self {
        Self::new(CLASS_JMP | OP_CALL, 0, 0, 0, helper)
    }

    /// Ends the program; R0 is its verdict.
    pub const fn exit() -> Self {
        Self::new(CLASS_JMP | OP_EXIT, 0, 0, 0, 0)
    }

    /// `dst = value`, all 64 bits: two slots.
    pub const fn load_u64(dst: Reg, value: u64) -> [Self; 2] {
        Self::load_wide(dst, 0, value as u32 as i32, (value >> 32) as u32 as i32)
    }

    /// `dst = ` the map behind an open descriptor: two slots. The kernel resolves it while it loads the program, which
    /// then holds the map.
    pub const fn load_map(dst: Reg, fd: i32) -> [Self; 2] {
        Self::load_wide(dst, PSEUDO_MAP_FD, fd, 0)
    }

    /// The number of the register written, or compared.
    pub const fn dst(self) -> u8 {
        if cfg!(target_endian = "little") { self.regs & 0xf } else { self.regs >> 4 }
    }

    /// The number of the register read.
    pub const fn src(self) -> u8 {
        if cfg!(target_endian = "little") { self.regs >> 4 } else { self.regs & 0xf }
    }

    /// Whether this is the first of the two slots of a 64-bit immediate.
    pub const fn is_wide(self) -> bool {
        self.code == LOAD_U64
    }

    const fn new(code: u8, dst: u8, src: u8, off: i16, imm: i32) -> Self {
        let regs = if cfg!(target_endian = "little") { src << 4 | dst } else { dst << 4 | src };
        Self { code, regs, off, imm }
    }

    const fn with_operand(code: u8, dst: Reg, operand: Operand) -> Self {
        match operand {
            Operand::Reg(src) => Self::new(code | FROM_REG, dst as u8, src as u8, 0, 0),
            Operand::Imm(imm) => Self::new(code, dst as u8, 0, 0, imm),
        }
    }

    const fn load_wide(dst: Reg, src: u8, low: i32, high: i32) -> [Self; 2] {
        [Self::new(LOAD_U64, dst as u8, src, 0, low), Self::new(0, 0, 0, 0, high)]
    }

    fn write_operand(self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.code & FROM_REG != 0 { write!(f, "r{}", self.src()) } else { write!(f, "{:#x}", self.imm) }
    }
}

/// One instruction in the verifier's notation: `r2 = *(u16 *)(r9 + 12)`. A 64-bit immediate shows its low half.
impl fmt::Display for Insn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (dst, src, op) = (self.dst(), self.src(), self.code & 0xf0);
        let size = match self.code & 0x18 {
            0x00 => "u32",
            0x08 => "u16",
            0x10 => "u8",
            _ => "u64",
        };
        let at = |f: &mut fmt::Formatter<'_>, base: u8| write!(f, "*({size} *)(r{base} {:+})", self.off);
        match self.code & 7 {
            CLASS_LD if self.is_wide() && src == PSEUDO_MAP_FD => write!(f, "r{dst} = map fd {}", self.imm),
            CLASS_LD if self.is_wide() => write!(f, "r{dst} = {:#x} ll", self.imm),
            CLASS_LDX => {
                write!(f, "r{dst} = ")?;
                at(f, src)
            }
            CLASS_ST => {
                at(f, dst)?;
                write!(f, " = {:#x}", self.imm)
            }
            CLASS_STX => {
                at(f, dst)?;
                write!(f, " = r{src}")
            }
            CLASS_ALU if op == OP_END => write!(f, "r{dst} = be{} r{dst}", self.imm),
            class @ (CLASS_ALU | CLASS_ALU64) => {
                let Some(sign) = alu_sign(op) else { return write!(f, "code {:#04x}", self.code) };
                write!(f, "{}{dst} {sign} ", if class == CLASS_ALU { 'w' } else { 'r' })?;
                self.write_operand(f)
            }
            CLASS_JMP => match op {
                OP_GOTO => write!(f, "goto {:+}", self.off),
                OP_CALL => write!(f, "call {}", self.imm),
                OP_EXIT => f.write_str("exit"),
                _ => {
                    let Some(sign) = cond_sign(op) else { return write!(f, "code {:#04x}", self.code) };
                    write!(f, "if r{dst} {sign} ")?;
                    self.write_operand(f)?;
                    write!(f, " goto {:+}", self.off)
                }
            },
            _ => write!(f, "code {:#04x}", self.code),
        }
    }
}

fn alu_sign(op: u8) -> Option<&'static str> {
    let signs = [
        (Alu::Add, "+="),
        (Alu::Sub, "-="),
        (Alu::Mul, "*="),
        (Alu::Or, "|="),
        (Alu::And, "&="),
        (Alu::Lsh, "<<="),
        (Alu::Rsh, ">>="),
        (Alu::Xor, "^="),
        (Alu::Mov, "="),
    ];
    signs.iter().find(|(alu, _)| *alu as u8 == op).map(|(_, sign)| *sign)
}

fn cond_sign(op: u8) -> Option<&'static str> {
    let signs = [
        (Cond::Eq, "=="),
        (Cond::Gt, ">"),
        (Cond::Ge, ">="),
        (Cond::Set, "&"),
        (Cond::Ne, "!="),
        (Cond::Lt, "<"),
        (Cond::Le, "<="),
    ];
    signs.iter().find(|(cond, _)| *cond as u8 == op).map(|(_, sign)| *sign)
}

/// A whole program, shown one instruction a line, each with its place; jumps name the place they go to.
#[derive(Clone, Copy, Debug)]
pub struct Listing<'a>(pub &'a [Insn]);

impl fmt::Display for Listing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.iter().enumerate();
        while let Some((at, insn)) = rest.next() {
            write!(f, "{at:4}: {insn}")?;
            let op = insn.code & 0xf0;
            if insn.is_wide() {
                rest.next();
            } else if insn.code & 7 == CLASS_JMP && op != OP_CALL && op != OP_EXIT {
                write!(f, " <{}>", at as i64 + 1 + i64::from(insn.off))?;
            }
            f.write_str("\n")?;
        }
        Ok(())
    }
}

/// A place in a program, to jump to before it is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Label(usize);

/// Why a program could not be put together.
#[non_exhaustive]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AssembleError {
    /// The instruction at this place jumps to a label that was never bound.
    Unbound {
        /// Place of the jump, in instructions.
        at: usize,
    },
    /// A jump over more than 32767 instructions.
    TooFar {
        /// Place of the jump, in instructions.
        at: usize,
        /// Place of its target, in instructions.
        to: usize,
    },
}

impl fmt::Display for AssembleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unbound { at } => write!(f, "the jump at instruction {at} has no target; bind its label"),
            Self::TooFar { at, to } => {
                write!(f, "the jump from instruction {at} to {to} is too far; use fewer rules")
            }
        }
    }
}

impl core::error::Error for AssembleError {}

/// Puts instructions one after the other and fills in the jumps at the end.
///
/// ```
/// use xdp_bpf::insn::{Assembler, Cond, Insn, Reg};
///
/// let mut code = Assembler::new();
/// let out = code.label();
/// code.push(Insn::mov(Reg::R0, 2)); // XDP_PASS
/// code.jump(Cond::Ne, Reg::R1, 0, out);
/// code.push(Insn::mov(Reg::R0, 1)); // XDP_DROP
/// code.bind(out);
/// code.push(Insn::exit());
/// assert_eq!(code.finish()?[1].off, 1);
/// # Ok::<(), xdp_bpf::insn::AssembleError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Assembler {
    insns: Vec<Insn>,
    places: Vec<Option<usize>>, // by label
    jumps: Vec<(usize, Label)>, // the instruction to patch, and where it goes
}

impl Assembler {
    /// An empty program.
    pub fn new() -> Self {
        Self::default()
    }

    /// A new label, to be bound once.
    pub fn label(&mut self) -> Label {
        self.places.push(None);
        Label(self.places.len() - 1)
    }

    /// Binds `label` to the place of the next instruction.
    ///
    /// # Panics
    /// If it was bound before, or comes from another assembler with more labels.
    pub fn bind(&mut self, label: Label) {
        let place = &mut self.places[label.0];
        assert!(place.is_none(), "a label names one place");
        *place = Some(self.insns.len());
    }

    /// Adds an instruction.
    pub fn push(&mut self, insn: Insn) {
        self.insns.push(insn);
    }

    /// Adds several instructions, such as the two slots of a 64-bit immediate.
    pub fn extend(&mut self, insns: impl IntoIterator<Item = Insn>) {
        self.insns.extend(insns);
    }

    /// Adds an unconditional jump.
    pub fn goto(&mut self, to: Label) {
        self.jumps.push((self.insns.len(), to));
        self.push(Insn::goto(0));
    }

    /// Adds a jump taken if `reg cond operand`.
    pub fn jump(&mut self, cond: Cond, reg: Reg, operand: impl Into<Operand>, to: Label) {
        self.jumps.push((self.insns.len(), to));
        self.push(Insn::jump(cond, reg, operand, 0));
    }

    /// Fills in the jumps.
    ///
    /// # Errors
    /// A jump whose label is not bound, or is too far away.
    pub fn finish(mut self) -> Result<Vec<Insn>, AssembleError> {
        for &(at, label) in &self.jumps {
            let to = self.places.get(label.0).copied().flatten().ok_or(AssembleError::Unbound { at })?;
            let off = to as i64 - at as i64 - 1;
            self.insns[at].off = i16::try_from(off).map_err(|_| AssembleError::TooFar { at, to })?;
        }
        Ok(self.insns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn instructions_are_encoded_as_the_kernel_defines_them() {
        let bytes = |insn: Insn| (insn.code, insn.dst(), insn.src(), insn.off, insn.imm);
        assert_eq!(bytes(Insn::mov(Reg::R6, Reg::R1)), (0xbf, 6, 1, 0, 0));
        assert_eq!(bytes(Insn::mov(Reg::R0, 2)), (0xb7, 0, 0, 0, 2));
        assert_eq!(bytes(Insn::load(Size::Word, Reg::R2, Reg::R1, 16)), (0x61, 2, 1, 16, 0));
        assert_eq!(bytes(Insn::load(Size::Half, Reg::R2, Reg::R7, 12)), (0x69, 2, 7, 12, 0));
        assert_eq!(bytes(Insn::load(Size::Byte, Reg::R3, Reg::R9, 9)), (0x71, 3, 9, 9, 0));
        assert_eq!(bytes(Insn::store(Size::Double, Reg::R10, -8, Reg::R1)), (0x7b, 10, 1, -8, 0));
        assert_eq!(bytes(Insn::store_imm(Size::Word, Reg::R10, -4, 7)), (0x62, 10, 0, -4, 7));
        assert_eq!(bytes(Insn::swap_be16(Reg::R4)), (0xdc, 4, 0, 0, 16));
        assert_eq!(bytes(Insn::alu32(Alu::Add, Reg::R2, 3)), (0x04, 2, 0, 0, 3));
        assert_eq!(bytes(Insn::jump(Cond::Gt, Reg::R9, Reg::R8, 5)), (0x2d, 9, 8, 5, 0));
        assert_eq!(bytes(Insn::call(51)), (0x85, 0, 0, 0, 51));
        assert_eq!(bytes(Insn::exit()), (0x95, 0, 0, 0, 0));
        assert_eq!(Insn::load_map(Reg::R1, 9).map(bytes), [(0x18, 1, 1, 0, 9), (0, 0, 0, 0, 0)]);
        assert_eq!(
            Insn::load_u64(Reg::R0, 0x1234_5678_9abc_def0).map(|i| i.imm as u32),
            [0x9abc_def0, 0x1234_5678]
        );
    }

    #[test]
    fn a_listing_reads_like_the_verifiers() {
        let mut code = Assembler::new();
        let (again, out) = (code.label(), code.label());
        code.push(Insn::load(Size::Half, Reg::R2, Reg::R9, -2));
        code.bind(again);
        code.extend(Insn::load_map(Reg::R1, 7));
        code.jump(Cond::Ne, Reg::R2, 8, out);
        code.push(Insn::alu32(Alu::Lsh, Reg::R2, Reg::R3));
        code.push(Insn::store(Size::Byte, Reg::R10, -1, Reg::R2));
        code.push(Insn::swap_be16(Reg::R2));
        code.goto(again);
        code.bind(out);
        code.push(Insn::call(51));
        code.push(Insn::exit());
        let text = Listing(&code.finish().unwrap()).to_string();
        let want = "   0: r2 = *(u16 *)(r9 -2)\n   1: r1 = map fd 7\n   3: if r2 != 0x8 goto +4 <8>\n   4: w2 <<= r3\n   \
                    5: *(u8 *)(r10 -1) = r2\n   6: r2 = be16 r2\n   7: goto -7 <1>\n   8: call 51\n   9: exit\n";
        assert_eq!(text, want);
    }

    #[test]
    fn a_jump_without_a_target_and_one_too_far_are_errors() {
        let mut code = Assembler::new();
        let nowhere = code.label();
        code.goto(nowhere);
        assert_eq!(code.finish(), Err(AssembleError::Unbound { at: 0 }));

        for (over, fits) in [(32_767, true), (32_768, false)] {
            let mut code = Assembler::new();
            let end = code.label();
            code.goto(end);
            code.extend((0..over).map(|_| Insn::exit()));
            code.bind(end);
            code.push(Insn::exit());
            match code.finish() {
                Ok(insns) => assert!(fits && insns[0].off == 32_767),
                Err(error) => assert_eq!((fits, error), (false, AssembleError::TooFar { at: 0, to: 32_769 })),
            }
        }
    }

    #[test]
    #[should_panic(expected = "one place")]
    fn a_label_bound_twice_is_refused() {
        let mut code = Assembler::new();
        let label = code.label();
        code.bind(label);
        code.bind(label);
    }
}
