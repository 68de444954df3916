import com.pixelmed.validate.DicomSRValidator;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.List;

/** Validates many SR documents in one virtual machine: arguments are the number of threads and the files. */
public final class PixelMedBatch {
    private static final long STACK = 64L << 20;

    public static void main(String[] arguments) throws InterruptedException {
        ConcurrentLinkedQueue<String> files = new ConcurrentLinkedQueue<>(List.of(arguments).subList(1, arguments.length));
        Thread[] threads = new Thread[Integer.parseInt(arguments[0])];
        for (int i = 0; i < threads.length; i++) {
            threads[i] = new Thread(null, () -> work(files), "validator", STACK);
            threads[i].start();
        }
        for (Thread thread : threads) {
            thread.join();
        }
    }

    private static void work(ConcurrentLinkedQueue<String> files) {
        try {
            DicomSRValidator validator = new DicomSRValidator();
            for (String file = files.poll(); file != null; file = files.poll()) {
                say(file, validator.validate(file));
            }
        } catch (Exception stopped) {
            System.err.println(stopped);
        }
    }

    /** The answer on lines of its own, after one that names the file. */
    private static synchronized void say(String file, String answer) {
        System.out.println("\n@file " + file + "\n" + answer);
    }
}
