import { Dialog } from "./Dialog";

interface MyDataDialogProps {
  onClose: () => void;
  onErased: () => void;
}

export function MyDataDialog({ onClose }: MyDataDialogProps) {
  return (
    <Dialog title="My data" onClose={onClose} wide>
      <p>
        <a href="/v1/me/export" download="ratchet-export.jsonl">
          Export everything
        </a>
      </p>
    </Dialog>
  );
}
