/** A scrub that crashes. */
process.kill(process.pid, "SIGSEGV");
