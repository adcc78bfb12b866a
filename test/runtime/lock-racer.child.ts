/** Opens a directory when it is told to, says what came of it, and holds it until its input ends or it is killed. */
import { lockDirectory } from "../../src/runtime/directory-lock.ts";

const [directory = ""] = process.argv.slice(2);
process.stdout.write("ready\n");
process.stdin.once("data", () => {
  lockDirectory(directory).then(
    () => process.stdout.write("locked\n"),
    (error: unknown) => {
      const { code, details } = error as { code?: string; details?: { pid?: number } };
      process.stdout.write(`${code} ${details?.pid}\n`);
    },
  );
});
process.stdin.once("end", () => process.exit(0));
