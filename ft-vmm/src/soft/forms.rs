//! Which instructions are those of SSE, MMX and the x87: the tables of [`xmm`](super::xmm) and [`x87`](super::x87), looked up once for each
//! instruction there is.

use super::decode::Decoding;
use super::x87::{X87Form, x87_form};
use super::xmm::mmx::{MmxForm, mmx_form};
use super::xmm::{XmmForm, xmm_form};
use super::{fpu, mmx, sse};
use iced_x86::Code;
use std::sync::LazyLock;

/// How an instruction of SSE, MMX or the x87 is executed.
pub(crate) enum Form {
    Xmm(XmmForm),
    Mmx(MmxForm),
    X87(X87Form),
}

/// By the number of the instruction.
static FORMS: LazyLock<Vec<Option<Form>>> = LazyLock::new(|| {
    let form = |code| {
        let xmm = xmm_form(code).map(Form::Xmm);
        xmm.or_else(|| mmx_form(code).map(Form::Mmx)).or_else(|| x87_form(code).map(Form::X87))
    };
    Code::values().map(form).collect()
});

pub(crate) fn decode(decoding: &mut Decoding<'_>) -> Option<()> {
    let form = FORMS.get(decoding.instruction.code() as usize)?.as_ref()?;
    decoding.op.form = Some(form);
    match form {
        Form::Xmm(form) => sse::decode(decoding, form),
        Form::Mmx(form) => mmx::decode(decoding, form),
        Form::X87(_) => fpu::decode(decoding),
    }
}
