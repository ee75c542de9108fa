export const RewardModel = () => <p>Not built yet.</p>;
