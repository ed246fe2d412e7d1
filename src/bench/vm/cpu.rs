//! `ft bench cpu`: how fast the software vCPU is, on the guest's compute loop, with nothing around it.

use crate::bench::stats::Spread;
use ft::core::machine::{Machine as _, Stop};
use ft::core::units::Tick;
use ft_vmm::board::BoardConfig;
use ft_vmm::boot::{BootSource, Protocol};
use ft_vmm::guest_image::BUILT_IN;
use ft_vmm::machine::{Vm, VmConfig};
use ft_vmm::power::OnCrash;
use ft_vmm::soft::SoftVcpu;
use serde::Serialize;
use std::error::Error;
use std::time::{Duration, Instant};

/// Ticks between two looks at the clock.
const STEP: u64 = 20_000_000;

/// Ticks before the first measurement: boot, and the first use of everything.
const WARM_UP: u64 = 200_000_000;

/// What is to be reached, in million instructions a second.
const TARGET_MIPS: f64 = 150.0;

/// How fast it was.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct CpuFigures {
    /// Million instructions a second: the median of the rounds, and the least and the most.
    pub(crate) mips: f64,
    pub(crate) mips_min: f64,
    pub(crate) mips_max: f64,
    pub(crate) instructions: u64,
    pub(crate) target_mips: f64,
    pub(crate) reached: bool,
}

/// Runs the compute mode for `rounds` rounds of `window` each.
pub(crate) fn run(rounds: usize, window: Duration) -> Result<CpuFigures, Box<dyn Error>> {
    let boot = BootSource {
        protocol: Protocol::Flat,
        image: BUILT_IN.into(),
        initrd: None,
        command_line: "mode=compute rounds=1000000000".into(),
    };
    let (board, on_crash) = (BoardConfig::default(), OnCrash::default());
    let config = VmConfig { ram_bytes: 64 << 20, boot, board, on_crash };
    let mut vm = Vm::new(config, SoftVcpu::new())?;
    run_for(&mut vm, WARM_UP)?;
    let mut mips = Vec::new();
    for _ in 0..rounds {
        let (from, started) = (vm.point().tick, Instant::now());
        while started.elapsed() < window {
            run_for(&mut vm, STEP)?;
        }
        mips.push((vm.point().tick.0 - from.0) as f64 / started.elapsed().as_secs_f64() / 1e6);
    }
    let Spread { median, min, max } = Spread::of(&mips).ok_or("no round was asked for")?;
    Ok(CpuFigures {
        mips: median,
        mips_min: min,
        mips_max: max,
        instructions: vm.point().tick.0,
        target_mips: TARGET_MIPS,
        reached: median >= TARGET_MIPS,
    })
}

fn run_for(vm: &mut Vm<SoftVcpu>, ticks: u64) -> Result<(), Box<dyn Error>> {
    let end = Tick(vm.point().tick.0 + ticks);
    while vm.point().tick < end {
        let stop = vm.run(end)?;
        while vm.take_effect().is_some() {}
        if stop == Stop::Idle {
            return Err("the guest's compute loop has come to rest".into());
        }
    }
    Ok(())
}
