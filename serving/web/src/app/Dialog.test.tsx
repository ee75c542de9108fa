import { fireEvent, render, screen } from "@testing-library/react";
import { expect, test, vi } from "vitest";
import { Dialog } from "./Dialog";

test("a click beside a dialog closes it, and a selection that only ends there does not", () => {
  HTMLDialogElement.prototype.showModal ??= vi.fn(); // jsdom has no modal dialogs
  HTMLDialogElement.prototype.close ??= vi.fn();
  const onClose = vi.fn();
  render(
    <Dialog title="Why?" onClose={onClose}>
      <textarea aria-label="Reason" />
    </Dialog>,
  );
  const beside = document.querySelector("dialog")!;
  fireEvent.pointerDown(screen.getByLabelText("Reason"));
  fireEvent.click(beside); // of what began inside and ended outside the dialog is told
  expect(onClose).not.toHaveBeenCalled();
  fireEvent.pointerDown(beside);
  fireEvent.click(beside);
  expect(onClose).toHaveBeenCalledTimes(1);
});
