import { cleanup, configure } from "@testing-library/react";
import { afterEach } from "vitest";

// For machines that are slow and busy: what is waited for comes at once elsewhere.
configure({ asyncUtilTimeout: 10_000 });
afterEach(cleanup);
