// What the numbers are called, what they mean, and what one sees, in sentences.
import { formatNumber, formatPercent, formatPlain } from "../lib/format.js";

const plain = (x) => formatNumber(x, 3);

/** number: label, how it is written, what it means */
export const NUMBERS = {
  contrast: {
    hardest: ["Hardest tenth takes", formatPercent, "Share of the push on wrong answers that the most similar tenth of them gets. 10 % if all are pushed alike; 100 % if only the hardest count."],
    accuracy: ["Partner found", formatPercent, "Rows whose most similar other row is a right answer."],
    right: ["Cosine, right", plain, "Mean similarity with the right answers. Does not depend on the temperature."],
    wrong: ["Cosine, wrong", plain, "Mean similarity with the wrong answers."],
  },
  correlation: {
    on: ["On the diagonal", plain, "Sum of (1 − C)² over the diagonal: how little the two views agree."],
    off: ["Beside it × λ", plain, "λ times the sum of C² beside the diagonal: how much the coordinates repeat each other."],
    beside: ["Typical entry beside", plain, "Root mean square of the entries beside the diagonal; 0 is best. With B images, chance alone gives about 1/√B."],
  },
  moments: {
    invariance: ["Invariance × λ", plain, "λ times the mean squared distance between the two views' embeddings."],
    variance: ["Variance × μ", plain, "μ times the mean of what each coordinate's standard deviation lacks to 1; more than 1 is no better."],
    covariance: ["Covariance × ν", plain, "ν times the squared covariances of different coordinates, of both views, divided by E."],
    std: ["Standard deviation", plain, "Mean over coordinates and views. At least 1 is wanted; 0 is collapse."],
    below: ["Coordinates below 1", formatPercent, "Share of the coordinates that vary too little, and are pushed to vary more."],
  },
  gaussian: {
    prediction: ["Prediction × (1 − λ)", plain, "1 − λ times the mean squared distance of each view from the mean of the large views."],
    sigreg: ["SIGReg × λ", plain, "λ times the statistic below, which the paper calls SIGReg."],
    statistic: ["Statistic, all lines", plain, "Mean over all lines of Epps and Pulley's test of each shadow against a normal distribution: about 1.06 if it is one, growing with the batch if not."],
    worst: ["Statistic, worst line", plain, "The line on which the cloud looks least normal: row 0 of the pictures."],
    std: ["Spread of the shadows", plain, "Standard deviation, typical of all lines. 1 is wanted, 0 is collapse."],
  },
  assignment: {
    used: ["Prototypes used", plain, "Exponential of the entropy of the mean code: 1 if all images go to one prototype, K if they are shared out evenly."],
    uneven: ["Fullest prototype", (x) => `×${plain(x)}`, "Share of the fullest prototype, relative to an even share."],
    entropy: ["Softness of codes", plain, "Mean entropy of a code in nats: 0 if each image goes to one prototype only."],
  },
  distillation: {
    entropy: ["Teacher's entropy", plain, "In nats, mean over images: 0 if it is sure of one output, ln K if it says nothing."],
    kl: ["Distance (KL)", plain, "KL divergence of the student from the teacher, the part of the loss that learning can remove; loss = entropy + KL."],
    used: ["Outputs used", plain, "Exponential of the entropy of the teacher's mean opinion: 1 if it says the same of all images."],
  },
  cosine: {
    own: ["Own target, cosine", plain, "Mean cosine between a prediction and its own target: all that this loss sees."],
    other: ["Other targets, cosine", plain, "Mean cosine with the targets of other images. The loss does not look at it."],
    std: ["Spread", plain, "Standard deviation of the unit targets times √E: about 1 is healthy, 0 is collapse."],
  },
};

/** The numbers whose sum is the loss. */
export const PARTS = {
  correlation: ["on", "off"],
  moments: ["invariance", "variance", "covariance"],
  gaussian: ["prediction", "sigreg"],
  distillation: ["entropy", "kl"],
};

/** setting, or kind.setting: label, symbol, low, high, scale, what it does */
const SLIDERS = {
  temperature: ["Temperature", "τ", 0.01, 2, "log", "What goes into the softmax is divided by τ. Small: only the largest count."],
  teacher_temperature: ["Teacher's temperature", "τₜ", 0.01, 1, "log", "Smaller than the student's, so that the teacher is the surer of the two."],
  "distillation.temperature": ["Student's temperature", "τₛ", 0.01, 2, "log", "What the student says is divided by τₛ before its softmax."],
  "moments.lambda_": ["Invariance", "λ", 0, 50, "linear", "Weight of the distance between the two views."],
  "gaussian.lambda_": ["Weight of the shape", "λ", 0, 1, "linear", "λ weighs the shape of the cloud, 1 − λ the prediction."],
  mu: ["Variance", "μ", 0, 50, "linear", "Weight of the spread that coordinates lack."],
  nu: ["Covariance", "ν", 0, 10, "linear", "Weight of coordinates that vary together."],
  lambda_: ["Redundancy weight", "λ", 1e-4, 1, "log", "Weight of the entries beside the diagonal."],
  epsilon: ["Sharpness of codes", "ε", 0.005, 1, "log", "Scores are divided by ε before they are balanced. Small: hard assignments."],
  iterations: ["Sinkhorn iterations", "", 0, 20, "whole", "Rounds of balancing; 0 is a plain softmax of each row."],
  collapse: ["What if: collapse", "", 0, 1, "linear", "Pulls all embeddings towards one point: 0 as they are, 1 all the same."],
};

/** A setting's slider in this kind of loss. */
export const sliderOf = (kind, name) => SLIDERS[`${kind}.${name}`] ?? SLIDERS[name];

export const titles = {
  contrast: "Who is my partner?",
  correlation: "Do the coordinates repeat each other?",
  moments: "Do the coordinates vary, each in its own way?",
  gaussian: "Is the cloud of embeddings a round normal one?",
  assignment: "Which group does each image belong to?",
  distillation: "Does the student say what the teacher says?",
  cosine: "Do the two views say the same?",
};

const largest = (numbers, names) => names.map((name) => [name, numbers[name]]).sort((a, b) => b[1] - a[1])[0];

/** One or two sentences about what is seen now. */
export function explain(frame, { numbers }, settings) {
  const percent = (x) => `${Math.round(100 * x)}\u00a0%`;
  if (frame.kind === "contrast") {
    const { hardest, accuracy } = numbers;
    const who = accuracy > 0.99 ? "Every row's" : accuracy < 0.01 ? "No row's" : `${percent(accuracy)} of the rows'`;
    const push =
      hardest > 0.8
        ? `At τ = ${formatPlain(settings.temperature)} nearly all of the push (${percent(hardest)}) goes to the most similar tenth of the wrong answers: a few hard ones decide.`
        : hardest < 0.16
          ? `At τ = ${formatPlain(settings.temperature)} all wrong answers are pushed away about alike, whether similar or not.`
          : `At τ = ${formatPlain(settings.temperature)} the most similar tenth of the wrong answers gets ${percent(hardest)} of the push.`;
    return `${who} most similar candidate is a right answer. ${push}`;
  }
  if (frame.kind === "correlation") {
    const share = numbers.off / Math.max(numbers.loss, 1e-12);
    const most =
      share > 0.9
        ? "At this λ the loss hardly cares whether the two views agree."
        : share < 0.1
          ? "Until the diagonal comes near 1, or with a larger λ, it hardly cares whether coordinates repeat each other."
          : "Both parts have a say.";
    return `${percent(1 - share)} of the loss comes from the diagonal, ${percent(share)} from beside it. ${most}`;
  }
  if (frame.kind === "moments") {
    const [name, value] = largest(numbers, PARTS.moments);
    const what = { invariance: "the distance between the views", variance: "missing spread", covariance: "coordinates that vary together" };
    const spread =
      numbers.below > 0.99
        ? "No coordinate varies enough."
        : numbers.below < 0.01
          ? "All coordinates vary enough."
          : `${percent(1 - numbers.below)} of the coordinates vary enough.`;
    return value > 0 ? `${percent(value / numbers.loss)} of the loss is ${what[name]}. ${spread}` : `With all weights at 0 nothing is asked. ${spread}`;
  }
  if (frame.kind === "gaussian") {
    const { statistic, std } = numbers;
    const cloud =
      statistic < 2
        ? "On most lines the cloud cannot be told from a normal one."
        : std < 0.8
          ? `The cloud is too narrow: its shadows are ${plain(std)} wide, and 1 is wanted.`
          : std > 1.25
            ? `The cloud is too wide: its shadows are ${plain(std)} wide, and 1 is wanted.`
            : "The width is about right, the shape is not.";
    const share = numbers.sigreg / Math.max(numbers.loss, 1e-12);
    const weight =
      settings.lambda_ === 0
        ? " At λ = 0 nothing keeps it from shrinking to a point."
        : settings.lambda_ === 1
          ? " At λ = 1 the views need not agree at all."
          : ` ${percent(share)} of the loss is about the shape, the rest about the prediction.`;
    return cloud + weight;
  }
  if (frame.kind === "assignment") {
    const k = frame.arrays.scores.shape[2];
    return `The codes use ${plain(numbers.used)} of ${k} prototypes. ${
      settings.iterations === 0
        ? "Without balancing, nothing keeps all images from one prototype."
        : `${settings.iterations} round${settings.iterations === 1 ? "" : "s"} of Sinkhorn's balancing: the fullest prototype holds ${plain(numbers.uneven)} times its fair share.`
    }`;
  }
  if (frame.kind === "distillation") {
    const k = frame.arrays.student.shape[2];
    if (settings.teacher_temperature >= settings.temperature)
      return "The teacher is not surer than the student: nothing pulls them away from saying nothing at all.";
    if (numbers.used < 1.5) return `The teacher says almost the same of all images: it uses ${plain(numbers.used)} of ${k} outputs. That is collapse.`;
    return `The teacher uses ${plain(numbers.used)} of ${k} outputs${settings.centred ? "" : ", its centre not subtracted"}; its entropy is ${plain(numbers.entropy)} of at most ${plain(Math.log(k))} nats.`;
  }
  return settings.collapse > 0.9
    ? "All embeddings say the same: the loss is perfect, the spread is nearly 0, and nothing is known about any image. This loss does not see the difference."
    : `A prediction points at its own target with cosine ${plain(numbers.own)}, at the others with ${plain(numbers.other)}. Only the first is in the loss.`;
}
