/** Steps back behind everything else on the machine: what runs in simulated worlds has no clock of ours to fear, and what it runs beside has. */
import { constants, setPriority } from "node:os";

setPriority(constants.priority.PRIORITY_LOW);
