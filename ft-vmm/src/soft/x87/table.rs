//! Which instruction does what.

use super::arithmetic::{self, add, divide, multiply, subtract};
use super::compare::{self, Nan};
use super::env::{DOUBLE, SINGLE};
use super::operate::{self, Constant};
use super::transfer::{self, Source, popping};
use super::unit::{self, Unit};
use super::{X87Effect, X87Form, X87Operands, control, transcendental};
use crate::vcpu::Fpu;
use iced_x86::Code;

type Run = fn(&mut Fpu, X87Operands<'_>) -> X87Effect;

/// The form of an instruction, if it is one of the x87.
pub(crate) fn x87_form(code: Code) -> Option<X87Form> {
    to_control(code)
        .or_else(|| arithmetic_with_memory(code))
        .or_else(|| arithmetic_with_registers(code).map(computes))
        .or_else(|| of_top(code).map(computes))
        .or_else(|| comparison(code))
        .or_else(|| load(code))
        .or_else(|| store(code))
        .or_else(|| between_registers(code).map(computes))
}

/// A form without memory operand.
fn computes(run: Run) -> X87Form {
    X87Form { load: 0, store: 0, waits: true, run }
}

/// A function from an expression over the unit and the operands.
macro_rules! run {
    ($unit:ident, $io:ident => $body:expr) => {{
        fn body($unit: &mut Unit<'_>, $io: &mut X87Operands<'_>) -> super::env::Computed<X87Effect> {
            $body
        }
        let run: Run = |fpu, io| unit::operate(fpu, io, body);
        run
    }};
}

/// The same, popping ST(0) afterwards.
macro_rules! run_popping {
    ($unit:ident, $io:ident => $body:expr) => {
        run!($unit, $io => {
            let effect = $body;
            popping($unit, effect)
        })
    };
}

fn arithmetic_with_memory(code: Code) -> Option<X87Form> {
    use Code::*;
    macro_rules! of {
        ($source:ident, $operation:ident, $reversed:literal) => {
            X87Form {
                load: Source::$source.bytes(),
                ..computes(run!(unit, io => {
                    operate::with_memory(unit, io, Source::$source, $operation, $reversed)
                }))
            }
        };
    }
    Some(match code {
        Fadd_m32fp => of!(Single, add, false),
        Fmul_m32fp => of!(Single, multiply, false),
        Fsub_m32fp => of!(Single, subtract, false),
        Fsubr_m32fp => of!(Single, subtract, true),
        Fdiv_m32fp => of!(Single, divide, false),
        Fdivr_m32fp => of!(Single, divide, true),
        Fadd_m64fp => of!(Double, add, false),
        Fmul_m64fp => of!(Double, multiply, false),
        Fsub_m64fp => of!(Double, subtract, false),
        Fsubr_m64fp => of!(Double, subtract, true),
        Fdiv_m64fp => of!(Double, divide, false),
        Fdivr_m64fp => of!(Double, divide, true),
        Fiadd_m16int => of!(Word, add, false),
        Fimul_m16int => of!(Word, multiply, false),
        Fisub_m16int => of!(Word, subtract, false),
        Fisubr_m16int => of!(Word, subtract, true),
        Fidiv_m16int => of!(Word, divide, false),
        Fidivr_m16int => of!(Word, divide, true),
        Fiadd_m32int => of!(Long, add, false),
        Fimul_m32int => of!(Long, multiply, false),
        Fisub_m32int => of!(Long, subtract, false),
        Fisubr_m32int => of!(Long, subtract, true),
        Fidiv_m32int => of!(Long, divide, false),
        Fidivr_m32int => of!(Long, divide, true),
        _ => return None,
    })
}

fn arithmetic_with_registers(code: Code) -> Option<Run> {
    use Code::*;
    macro_rules! of {
        ($place:ident, $operation:ident, $reversed:literal) => {
            run!(unit, io => operate::$place(unit, io, $operation, $reversed))
        };
    }
    Some(match code {
        Fadd_st0_sti => of!(to_top, add, false),
        Fmul_st0_sti => of!(to_top, multiply, false),
        Fsub_st0_sti => of!(to_top, subtract, false),
        Fsubr_st0_sti => of!(to_top, subtract, true),
        Fdiv_st0_sti => of!(to_top, divide, false),
        Fdivr_st0_sti => of!(to_top, divide, true),
        Fadd_sti_st0 => of!(from_top, add, false),
        Fmul_sti_st0 => of!(from_top, multiply, false),
        Fsub_sti_st0 => of!(from_top, subtract, false),
        Fsubr_sti_st0 => of!(from_top, subtract, true),
        Fdiv_sti_st0 => of!(from_top, divide, false),
        Fdivr_sti_st0 => of!(from_top, divide, true),
        Faddp_sti_st0 => of!(from_popped, add, false),
        Fmulp_sti_st0 => of!(from_popped, multiply, false),
        Fsubp_sti_st0 => of!(from_popped, subtract, false),
        Fsubrp_sti_st0 => of!(from_popped, subtract, true),
        Fdivp_sti_st0 => of!(from_popped, divide, false),
        Fdivrp_sti_st0 => of!(from_popped, divide, true),
        _ => return None,
    })
}

/// What is done to ST(0), with ST(1) sometimes.
fn of_top(code: Code) -> Option<Run> {
    use Code::*;
    Some(match code {
        Fchs => run!(unit, _io => operate::sign(unit, |negative| !negative)),
        Fabs => run!(unit, _io => operate::sign(unit, |_| false)),
        Fxam => run!(unit, _io => operate::examine(unit)),
        Fsqrt => run!(unit, _io => operate::unary(unit, arithmetic::square_root)),
        Frndint => run!(unit, _io => operate::unary(unit, arithmetic::round_to_integer)),
        Fscale => run!(unit, _io => operate::scale(unit)),
        Fxtract => run!(unit, _io => operate::extract(unit)),
        Fprem => run!(unit, _io => operate::remainder(unit, false)),
        Fprem1 => run!(unit, _io => operate::remainder(unit, true)),
        F2xm1 => run!(unit, _io => operate::unary(unit, transcendental::exponential)),
        Fyl2x => run!(unit, _io => transcendental::with_pop(unit, transcendental::logarithm)),
        Fyl2xp1 => run!(unit, _io => transcendental::with_pop(unit, transcendental::logarithm_plus_one)),
        Fpatan => run!(unit, _io => transcendental::with_pop(unit, transcendental::arctangent)),
        Fsin => run!(unit, _io => transcendental::trigonometric(unit, transcendental::sine)),
        Fcos => run!(unit, _io => transcendental::trigonometric(unit, transcendental::cosine)),
        Fptan => run!(unit, _io => transcendental::trigonometric_pair(unit, transcendental::tangent)),
        Fsincos => run!(unit, _io => transcendental::trigonometric_pair(unit, transcendental::both)),
        _ => return None,
    })
}

fn comparison(code: Code) -> Option<X87Form> {
    use Code::*;
    use Nan::{Invalid, Quiet};
    macro_rules! memory {
        ($source:ident, $run:ident) => {
            X87Form {
                load: Source::$source.bytes(),
                ..computes($run!(unit, io => compare::with_memory(unit, io, Source::$source)))
            }
        };
    }
    Some(match code {
        Fcom_m32fp => memory!(Single, run),
        Fcomp_m32fp => memory!(Single, run_popping),
        Fcom_m64fp => memory!(Double, run),
        Fcomp_m64fp => memory!(Double, run_popping),
        Ficom_m16int => memory!(Word, run),
        Ficomp_m16int => memory!(Word, run_popping),
        Ficom_m32int => memory!(Long, run),
        Ficomp_m32int => memory!(Long, run_popping),
        Fcom_st0_sti | Fcom_st0_sti_DCD0 => {
            computes(run!(unit, io => compare::with_register(unit, io, Invalid)))
        }
        Fcomp_st0_sti | Fcomp_st0_sti_DCD8 | Fcomp_st0_sti_DED0 => {
            computes(run_popping!(unit, io => compare::with_register(unit, io, Invalid)))
        }
        Fucom_st0_sti => computes(run!(unit, io => compare::with_register(unit, io, Quiet))),
        Fucomp_st0_sti => computes(run_popping!(unit, io => compare::with_register(unit, io, Quiet))),
        Fcompp => computes(run_popping!(unit, _io => {
            let effect = compare::with_next(unit, Invalid);
            popping(unit, effect)
        })),
        Fucompp => computes(run_popping!(unit, _io => {
            let effect = compare::with_next(unit, Quiet);
            popping(unit, effect)
        })),
        Fcomi_st0_sti => computes(run!(unit, io => compare::into_flags(unit, io, Invalid, false))),
        Fcomip_st0_sti => computes(run!(unit, io => compare::into_flags(unit, io, Invalid, true))),
        Fucomi_st0_sti => computes(run!(unit, io => compare::into_flags(unit, io, Quiet, false))),
        Fucomip_st0_sti => computes(run!(unit, io => compare::into_flags(unit, io, Quiet, true))),
        Ftst => computes(run!(unit, _io => compare::with_zero(unit))),
        _ => return None,
    })
}

fn load(code: Code) -> Option<X87Form> {
    use Code::*;
    macro_rules! memory {
        ($source:ident) => {
            X87Form {
                load: Source::$source.bytes(),
                ..computes(run!(unit, io => transfer::load(unit, io, Source::$source)))
            }
        };
    }
    macro_rules! constant {
        ($name:ident) => {
            computes(run!(unit, _io => operate::constant(unit, Constant::$name)))
        };
    }
    Some(match code {
        Fld_m32fp => memory!(Single),
        Fld_m64fp => memory!(Double),
        Fld_m80fp => memory!(Extended),
        Fild_m16int => memory!(Word),
        Fild_m32int => memory!(Long),
        Fild_m64int => memory!(Quad),
        Fbld_m80bcd => X87Form { load: 10, ..computes(run!(unit, io => transfer::load_decimal(unit, io))) },
        Fld_sti => computes(run!(unit, io => transfer::duplicate(unit, io))),
        Fld1 => constant!(ONE),
        Fldl2t => constant!(LOG2_10),
        Fldl2e => constant!(LOG2_E),
        Fldpi => constant!(PI),
        Fldlg2 => constant!(LOG10_2),
        Fldln2 => constant!(LN_2),
        Fldz => constant!(ZERO),
        _ => return None,
    })
}

fn store(code: Code) -> Option<X87Form> {
    use Code::*;
    macro_rules! memory {
        ($bytes:literal, $run:ident, $function:ident $(, $argument:expr)?) => {
            X87Form {
                store: $bytes,
                ..computes($run!(unit, io => transfer::$function(unit, io $(, $argument)?)))
            }
        };
    }
    Some(match code {
        Fst_m32fp => memory!(4, run, store_short, SINGLE),
        Fstp_m32fp => memory!(4, run_popping, store_short, SINGLE),
        Fst_m64fp => memory!(8, run, store_short, DOUBLE),
        Fstp_m64fp => memory!(8, run_popping, store_short, DOUBLE),
        Fstp_m80fp => memory!(10, run_popping, store_extended),
        Fbstp_m80bcd => memory!(10, run_popping, store_decimal),
        Fist_m16int => memory!(2, run, store_integer, false),
        Fistp_m16int => memory!(2, run_popping, store_integer, false),
        Fisttp_m16int => memory!(2, run_popping, store_integer, true),
        Fist_m32int => memory!(4, run, store_integer, false),
        Fistp_m32int => memory!(4, run_popping, store_integer, false),
        Fisttp_m32int => memory!(4, run_popping, store_integer, true),
        Fistp_m64int => memory!(8, run_popping, store_integer, false),
        Fisttp_m64int => memory!(8, run_popping, store_integer, true),
        _ => return None,
    })
}

fn between_registers(code: Code) -> Option<Run> {
    use Code::*;
    const CARRY: u64 = 1 << 0;
    const PARITY: u64 = 1 << 2;
    const ZERO: u64 = 1 << 6;
    macro_rules! move_if {
        ($flags:expr, $set:literal) => {
            run!(unit, io => transfer::move_if(unit, io, |rflags| (rflags & ($flags) != 0) == $set))
        };
    }
    Some(match code {
        Fst_sti => run!(unit, io => transfer::copy(unit, io)),
        Fstpnce_sti => run_popping!(unit, io => transfer::copy_unchecked(unit, io)),
        Fstp_sti | Fstp_sti_DFD0 | Fstp_sti_DFD8 => {
            run_popping!(unit, io => transfer::copy(unit, io))
        }
        Fxch_st0_sti | Fxch_st0_sti_DDC8 | Fxch_st0_sti_DFC8 => {
            run!(unit, io => transfer::exchange(unit, io))
        }
        Fcmovb_st0_sti => move_if!(CARRY, true),
        Fcmove_st0_sti => move_if!(ZERO, true),
        Fcmovbe_st0_sti => move_if!(CARRY | ZERO, true),
        Fcmovu_st0_sti => move_if!(PARITY, true),
        Fcmovnb_st0_sti => move_if!(CARRY, false),
        Fcmovne_st0_sti => move_if!(ZERO, false),
        Fcmovnbe_st0_sti => move_if!(CARRY | ZERO, false),
        Fcmovnu_st0_sti => move_if!(PARITY, false),
        Ffree_sti => run!(unit, io => transfer::free(unit, io)),
        Ffreep_sti => run!(unit, io => transfer::free_and_pop(unit, io)),
        Fincstp => run!(unit, _io => transfer::turn(unit, 1)),
        Fdecstp => run!(unit, _io => transfer::turn(unit, -1)),
        _ => return None,
    })
}

fn to_control(code: Code) -> Option<X87Form> {
    use Code::*;
    let form = |load, store, waits, run| X87Form { load, store, waits, run };
    Some(match code {
        Wait | Fnop => form(0, 0, true, control::nothing as Run),
        // Of the 8087 and 80287; nothing since.
        Fneni | Fndisi | Fnsetpm => form(0, 0, false, control::nothing),
        Fninit => form(0, 0, false, control::init),
        Fnclex => form(0, 0, false, control::clear_exceptions),
        Fldcw_m2byte => form(2, 0, true, control::load_control),
        Fnstcw_m2byte => form(0, 2, false, control::store_control),
        Fnstsw_m2byte => form(0, 2, false, control::store_status),
        Fnstsw_AX => form(0, 0, false, control::status_to_ax),
        Fnstenv_m14byte => form(0, 14, false, control::store_environment),
        Fnstenv_m28byte => form(0, 28, false, control::store_environment),
        Fldenv_m14byte => form(14, 0, true, control::load_environment),
        Fldenv_m28byte => form(28, 0, true, control::load_environment),
        Fnsave_m94byte => form(0, 94, false, control::save),
        Fnsave_m108byte => form(0, 108, false, control::save),
        Frstor_m94byte => form(94, 0, true, control::restore),
        Frstor_m108byte => form(108, 0, true, control::restore),
        _ => return None,
    })
}
