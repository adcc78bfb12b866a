/**
 * Loops over the edges of a graph in compressed rows (csr.ts), in the arena.
 *
 * No data segment, no heap, no global state, as in distance.as.ts. Nothing is checked: rows and targets must be those of the arrays.
 */

/** Adds to each row of `into`, in `[from, to)`, what the ends of its edges have in `values`, edge by edge. */
export function pullSum(into: usize, offsets: usize, targets: usize, values: usize, from: u32, to: u32): void {
  let at = targets + (<usize>load<u32>(offsets + (<usize>from << 2)) << 2);
  for (let row = from; row < to; row++) {
    const end = targets + (<usize>load<u32>(offsets + (<usize>row << 2), 4) << 2);
    const place = into + (<usize>row << 3);
    let sum = load<f64>(place);
    for (; at < end; at += 4) sum += load<f64>(values + (<usize>load<u32>(at) << 3));
    store<f64>(place, sum);
  }
}
