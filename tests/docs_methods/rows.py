"""The rows of the five papers (systems and functions that they describe)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One row. ``also``: modules beside those of the methods that claim it; ``tests``: theirs.

    ``note``: what of it is left out and why, or, without any module, why it is not built.
    """

    number: str
    what: str
    also: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()
    note: str = ""


ROWS: tuple[Row, ...] = (
    Row(
        "000-1",
        "Routing by modality and body part",
        ("dicomnode/route/rules.py", "dicomnode/detectors/acceptance.py"),
        ("tests/unit/test_route.py",),
        "",
    ),
    Row(
        "000-2",
        "Preprocessing: windows, normalisation, resampling, registration hook",
        ("dicomnode/detectors/preprocess.py", "dicomnode/detectors/registration.py"),
        ("tests/unit/test_preprocess.py",),
        "",
    ),
    Row("000-3", "Handcrafted features: intensity, texture, shape", (), (), ""),
    Row("000-4", "SVM, random forest, neural network", (), (), ""),
    Row(
        "000-5",
        "PCA, k-means, hierarchical clustering",
        (),
        (),
        "hierarchical clustering is left out: it cannot score a new plane",
    ),
    Row(
        "000-6",
        "CNN for classification and segmentation",
        (),
        (),
        "registration by a network is left out: the SimpleITK hook registers",
    ),
    Row(
        "000-7",
        "RNN over slices",
        ("dicomnode/detectors/methods/autoencoders/next_slice.py",),
        ("tests/unit/test_methods_autoencoders.py",),
        "reports as sequences are left out: the node reads no reports",
    ),
    Row(
        "000-8",
        "Fusion of CT, MR and PET",
        note="left out: the public sets hold one modality a patient; a score of several series could not be measured",
    ),
    Row(
        "000-9",
        "How a decision was made: maps, nearest healthy patch, class activation",
        ("dicomnode/detectors/nearest_patch.py", "dicomnode/train/saliency.py"),
        ("tests/unit/test_nearest_patch.py",),
        "",
    ),
    Row(
        "000-10",
        "Robustness to adversarial attack (PGD)",
        ("dicomnode/train/attack_study.py",),
        ("tests/unit/test_stress.py",),
        "",
    ),
    Row(
        "000-11",
        "Subgroups, audit log",
        ("dicomnode/train/subgroups.py", "dicomnode/audit/chain.py"),
        ("tests/unit/test_evaluate_figures.py",),
        "de-identification is not built yet",
    ),
    Row(
        "000-12",
        "Acceleration, large volumes",
        ("dicomnode/detectors/execution.py", "dicomnode/detect/together.py"),
        ("tests/unit/test_execution.py",),
        "federated learning is left out: one site, one node",
    ),
    Row(
        "000-13",
        "Uses named: tumour, opacity, haemorrhage",
        (),
        (),
        "fracture, nodule, breast, ultrasound, vessel, Alzheimer: no data; a hosted model can be routed",
    ),
    Row("001-1", "Real and synthetic images to a classifier", (), (), ""),
    Row(
        "001-2",
        "GAN images of the rare class",
        ("dicomnode/detectors/methods/supervised/generated.py",),
        ("tests/unit/test_methods_supervised.py",),
        "",
    ),
    Row(
        "001-3", "PGGAN and DDPM as generators", (), (), "PGGAN is left out: at 64 pixels it is the plain GAN of 001-2"
    ),
    Row("001-4", "Reconstruction error of the generated image", (), (), ""),
    Row("001-5", "DenseNet121", (), (), ""),
    Row(
        "001-6",
        "Cluster figures of real against synthetic images",
        ("dicomnode/detectors/methods/supervised/generated.py",),
        ("tests/unit/test_methods_supervised.py",),
        "",
    ),
    Row("001-7", "Local outlier factor", (), (), ""),
    Row("001-L1", "Ensemble of classifiers", (), (), ""),
    Row("001-L2", "CLAHE, features, kNN, SVM", (), (), ""),
    Row("001-L3", "CheXNet", (), (), ""),
    Row(
        "001-L4",
        "CNN with 22 layers",
        note="left out: DenseNet121 stands for CNN classifiers; weights of others can be hosted",
    ),
    Row("001-L5", "Weighted vote", (), (), ""),
    Row(
        "001-L6",
        "AlexNet, VGG, ResNet, ViT",
        (
            "dicomnode/detectors/methods/backbones/resnet.py",
            "dicomnode/detectors/methods/backbones/squeezenet.py",
            "dicomnode/detectors/methods/backbones/mobilenet_v2.py",
        ),
        ("tests/unit/test_backbones.py",),
        "VGG, AlexNet and ViT are left out: no weights may be assumed; they can be hosted",
    ),
    Row("002-1", "Features of a network trained on other images", (), (), ""),
    Row(
        "002-2",
        "AnoGAN",
        note="left out: searching the code of each image takes minutes; f-AnoGAN replaces the search by an encoder",
    ),
    Row("002-3", "f-AnoGAN", (), (), ""),
    Row(
        "002-4",
        "Bayesian U-Net",
        ("dicomnode/detectors/methods/autoencoders/bayes_ae.py",),
        ("tests/unit/test_methods_autoencoders.py",),
        "needs layer segmentations; the Bayesian auto-encoder gives the same uncertainty without",
    ),
    Row("002-5", "Translation-consistent features", note="left out: needs paired translations of OCT; no such data"),
    Row("002-6", "α-GAN", (), (), ""),
    Row(
        "002-7",
        "CAAD: anomaly and confidence head",
        note="left out: the confidence is given by conformal p-values and the acquisition gate",
    ),
    Row("002-8", "DeScarGAN", note="left out: needs image-level labels of the target disease"),
    Row(
        "002-9",
        "Edges, morphology, PCA, RNN",
        note="left out: supervised on labels that the sets do not hold; edges and PCA are features of pca-residual",
    ),
    Row(
        "002-10",
        "Stacked AE features, k-means",
        ("dicomnode/detectors/methods/classical/k_means.py",),
        ("tests/unit/test_methods_classical.py",),
        "k-means on handcrafted features; stacked AE features are left out, deep-svdd learns its own",
    ),
    Row(
        "002-11",
        "Multiple instance learning",
        note="left out: bags with weak labels, none of the sets has them for training",
    ),
    Row("002-12", "Convolutional AE, ℓ2", (), (), ""),
    Row("002-13", "3-D convolutional AE", (), (), ""),
    Row("002-14", "Bayesian AE", (), (), ""),
    Row("002-15", "Cycle-MedGAN", note="left out: needs pairs of images with and without artefacts"),
    Row("002-16", "PCA leverage", (), (), ""),
    Row("002-17", "Next frame by conv-LSTM", (), (), ""),
    Row("002-18", "Constraint programming on fMRI", note="left out: constraints of fMRI time series; no such data"),
    Row("002-19", "SegAE", note="left out: needs T1, T2 and FLAIR of one patient"),
    Row(
        "002-20",
        "Siamese stacked AE, OC-SVM on codes",
        ("dicomnode/detectors/methods/classical/oc_svm.py",),
        ("tests/unit/test_methods_classical.py",),
        "the one-class SVM; codes of a siamese AE are left out: they need registered volumes",
    ),
    Row(
        "002-21",
        "VAE, locally Gaussian",
        ("dicomnode/detectors/methods/autoencoders/vae.py",),
        ("tests/unit/test_methods_autoencoders.py",),
        "",
    ),
    Row(
        "002-22",
        "Pseudo-healthy synthesis, GMM, OC-SVM",
        (),
        (),
        "mixture and one-class SVM; synthesis is what the DAE and AnomalyPro do",
    ),
    Row(
        "002-23",
        "Hidden Markov model of segmentations",
        note="left out: judges the quality of segmentations, the node has none to judge",
    ),
    Row(
        "002-24",
        "DistGP layers",
        note="left out: out-of-distribution segmentation; the acquisition gate asks that question of every model",
    ),
    Row("002-25", "Spatial AE with skips", (), (), ""),
    Row("002-26", "VAE scores", (), (), "WAIC and DoSE are left out; ℓ1, KL and gradient are built"),
    Row(
        "002-27",
        "SteGANomaly",
        note="left out: CycleGAN; the healthy and mixed regime is covered by AnomalyPro and Brainomaly",
    ),
    Row("002-28", "AnoVAEGAN", (), (), ""),
    Row("002-29", "∂KL/∂x", (), (), ""),
    Row("002-30", "GANomaly", (), (), ""),
    Row("002-31", "MADGAN", (), (), ""),
    Row("002-32", "Box plots and classifiers", (), (), ""),
    Row(
        "002-33",
        "GMVAE restoration",
        note="left out: iterative restoration of each image; the VAE with gradient score covers the row's idea",
    ),
    Row("002-34", "Bidirectional GAN", (), (), ""),
    Row("002-35", "DCGAN, patches, MIL on histology", note="left out: histology"),
    Row("002-36", "CAVGA", note="left out: attention maps of a classifier are given by DenseNet's class activation"),
    Row("002-37", "z-score", (), (), ""),
    Row("002-38", "OC-SVM, SVDD", (), (), ""),
    Row("002-39", "AE, GAN with encoder, one-class heads", (), (), ""),
    Row("003", "MedAI AnomalyPro, Brainomaly, their baselines", (), (), ""),
    Row("003 baseline", "PaDiM, PatchCore", (), (), ""),
    Row("004-1", "Neural network head", (), (), ""),
    Row("004-2", "kNN", (), (), ""),
    Row("004-3", "SVM", (), (), ""),
    Row("004-4", "Trees, bagging, forests, rules", (), (), ""),
    Row("004-5", "Naive Bayes", (), (), ""),
    Row(
        "004-6",
        "Accuracy paradox: sensitivity, AUPRC, prevalence",
        ("dicomnode/train/evaluate.py",),
        ("tests/unit/test_evaluate_figures.py",),
        "",
    ),
    Row("004-7", "CNN", (), (), ""),
    Row(
        "004-8",
        "Transfer by task affinity",
        ("dicomnode/detectors/methods/features/embedding.py",),
        ("tests/unit/test_methods_features.py",),
        "backbones are ranked by compare, not by a taskonomy",
    ),
    Row("004-9", "Sparse codes of features", (), (), ""),
    Row("004-10", "Partial freezing", (), (), ""),
    Row("004-11", "Ensembles", (), (), "multi-task learning is left out: one label"),
    Row("004-12", "Synthetic first, then real only", (), (), ""),
    Row(
        "004-13",
        "Augmentation",
        ("dicomnode/detectors/methods/drawing.py",),
        ("tests/unit/test_methods_supervised.py",),
        "",
    ),
    Row("004-14", "Labels from reports", note="left out: no reports in the sets; labels come as labels.csv"),
    Row("004-15", "Table of data sets", note="left out: its rows are shifted, not usable"),
)
