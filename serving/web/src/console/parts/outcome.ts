import { ApiError, explain } from "../../api/client";

/** It was refused because things stand otherwise now, or what it is about is gone. */
export const refused = (error: unknown): boolean =>
  error instanceof ApiError && (error.status === 409 || error.status === 404);

/** No answer, or none that says: it may have been done all the same. */
export const unsure = (error: unknown): boolean =>
  error instanceof ApiError && (error.status === 0 || error.status >= 500);

/** What became of a deed that failed. */
export function outcome(error: unknown): string {
  if (unsure(error)) return `It is not known whether this was done: look before you repeat it. ${explain(error)}`;
  const overtaken = refused(error) && (error as ApiError).code === "conflict";
  return overtaken ? `Somebody else was quicker, and this was not done: ${explain(error)}` : explain(error);
}
