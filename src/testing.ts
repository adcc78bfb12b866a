/**
 * `shardloom/testing`: what tests of user actors need, without threads: virtual time, seeded randomness, one system.
 */
export { createTestRunner, type TestRunner, type TestRunnerOptions } from "./actor/test-runner.ts";
export { createSeededRandom, type Random } from "./runtime/random.ts";
export { createVirtualTime, type VirtualTime } from "./runtime/scheduler.ts";
