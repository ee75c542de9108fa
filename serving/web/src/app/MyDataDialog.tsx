import { MyData } from "../rating";
import { Dialog } from "./Dialog";

interface MyDataDialogProps {
  onClose: () => void;
  onErased: () => void;
}

export function MyDataDialog({ onClose, onErased }: MyDataDialogProps) {
  return (
    <Dialog title="My data" onClose={onClose} wide>
      <MyData onErased={onErased} />
    </Dialog>
  );
}
