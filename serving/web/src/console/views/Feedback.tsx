export const Feedback = () => <p>Not built yet.</p>;
