import { saidLess } from "../chat/said";
import { MyData } from "../rating";
import { Dialog } from "./Dialog";

interface MyDataDialogProps {
  onClose: () => void;
  /** Somebody goes to a conversation. */
  onLeave: () => void;
  onErased: () => void;
}

export function MyDataDialog({ onClose, onLeave, onErased }: MyDataDialogProps) {
  return (
    <Dialog title="My data" onClose={onClose} wide>
      <MyData onLeave={onLeave} onTakenBack={saidLess} onErased={onErased} />
    </Dialog>
  );
}
