/**
 * Chooses the seed of this test run, prints it first, and hands it to every test process as `SEED`.
 *
 * Invariant: `SEED=<number> npm test` repeats every random test of a run that printed that number.
 */
export default function chooseSeed() {
  const given = process.env["SEED"];
  if (given !== undefined && !/^\d+$/.test(given))
    throw new Error(`SEED must be a whole number: current value is ${given}`);
  const seed = given ?? String(Math.floor(Math.random() * 2 ** 31));
  if (process.env["SEED_CHOSEN"] === seed) return; // for another project of the same run
  process.env["SEED"] = seed;
  process.env["SEED_CHOSEN"] = seed;
  process.stdout.write(`seed ${seed} (SEED=${seed} npm test repeats this run)\n`);
}
