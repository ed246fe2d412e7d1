//! wip
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(missing_docs)]
mod case;
mod codes;
mod dice;
mod generate;
mod layout;
mod native;
mod operands;
mod values;

use generate::Family;

#[test]
fn native_speed() {
    for family in Family::ALL {
        let mut native = native::Native::start();
        let image = layout::Image::new(1);
        let start = std::time::Instant::now();
        let mut vectors = std::collections::BTreeMap::new();
        let mut gen_time = std::time::Duration::ZERO;
        let mut n = 0;
        for b in 0..40u64 {
            let t = std::time::Instant::now();
            let cases: Vec<_> = (0..native::BATCH as u64).map(|i| generate::case(family, b * 128 + i)).collect();
            gen_time += t.elapsed();
            native.begin(&image, &cases);
            for o in native.outcomes() {
                *vectors.entry(o.vector).or_insert(0) += 1;
                n += 1;
            }
        }
        println!("{family:?} {n} in {:?}, of which generating {gen_time:?}: {vectors:?}", start.elapsed());
    }
    println!("{} {} {}", codes::INTEGER_POOL.len(), codes::SSE_POOL.len(), codes::X87_POOL.len());
}

#[test]
fn stuck() {
    let mut native = native::Native::start();
    let image = layout::Image::new(1);
    let mut case = generate::case(Family::Integer, 1);
    case.set_bytes(&[0xeb, 0xfe]);
    println!("{:x}", native.run(&image, &case).vector);
    case.set_bytes(&[0xeb, 0xfe]);
    println!("{:x}", native.run(&image, &case).vector);
}
