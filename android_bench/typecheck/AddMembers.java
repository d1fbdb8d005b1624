import java.io.IOException;
import java.io.InputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashSet;
import java.util.TreeMap;
import java.util.function.Predicate;
import java.util.jar.JarEntry;
import java.util.jar.JarFile;
import java.util.jar.JarOutputStream;
import org.objectweb.asm.ClassReader;
import org.objectweb.asm.ClassVisitor;
import org.objectweb.asm.ClassWriter;
import org.objectweb.asm.FieldVisitor;
import org.objectweb.asm.MethodVisitor;
import org.objectweb.asm.Opcodes;

/**
 * Writes an android.jar that also has newer members: `AddMembers ANDROID_JAR STUBS_JAR OUTPUT_JAR`.
 *
 * <p>A class of STUBS_JAR that ANDROID_JAR also has gives it its fields, methods and nested classes, in place of those
 * of the same name and type; a class that it does not have is added as it is. The result is compiled against, never run.
 */
public final class AddMembers {
    private static final String IMPLICIT_CONSTRUCTOR = "<init>()V";

    public static void main(String[] args) throws IOException {
        var stubs = classes(Path.of(args[1]));
        var merged = new TreeMap<String, byte[]>(stubs);
        for (var entry : classes(Path.of(args[0])).entrySet()) {
            byte[] newer = stubs.get(entry.getKey());
            merged.put(entry.getKey(), newer == null ? entry.getValue() : merge(entry.getValue(), newer));
        }
        try (var out = new JarOutputStream(Files.newOutputStream(Path.of(args[2])))) {
            out.setLevel(1);
            for (var entry : merged.entrySet()) {
                out.putNextEntry(new JarEntry(entry.getKey()));
                out.write(entry.getValue());
            }
        }
    }

    private static TreeMap<String, byte[]> classes(Path jar) throws IOException {
        var found = new TreeMap<String, byte[]>();
        try (var file = new JarFile(jar.toFile())) {
            for (var entry : file.stream().filter(it -> it.getName().endsWith(".class")).toList()) {
                try (InputStream in = file.getInputStream(entry)) {
                    found.put(entry.getName(), in.readAllBytes());
                }
            }
        }
        return found;
    }

    private static byte[] merge(byte[] older, byte[] newer) {
        var names = new HashSet<String>();
        new ClassReader(newer).accept(new Members(null, names::add), ClassReader.SKIP_CODE);
        names.remove(IMPLICIT_CONSTRUCTOR);
        var writer = new ClassWriter(0);
        new ClassReader(older).accept(new Members(writer, it -> !names.contains(it)), 0);
        new ClassReader(newer).accept(new Body(writer), ClassReader.SKIP_DEBUG);
        writer.visitEnd();
        return writer.toByteArray();
    }

    /** Passes on those members whose name and type `wanted` accepts; a stub's implicit constructor is not a member. */
    private static class Members extends ClassVisitor {
        private final Predicate<String> wanted;

        Members(ClassVisitor next, Predicate<String> wanted) {
            super(Opcodes.ASM9, next);
            this.wanted = wanted;
        }

        @Override
        public void visitInnerClass(String name, String outer, String inner, int access) {
            if (wanted.test("class " + name)) super.visitInnerClass(name, outer, inner, access);
        }

        @Override
        public FieldVisitor visitField(int access, String name, String type, String signature, Object value) {
            return wanted.test("field " + name) ? super.visitField(access, name, type, signature, value) : null;
        }

        @Override
        public MethodVisitor visitMethod(int access, String name, String type, String signature, String[] thrown) {
            return wanted.test(name + type) ? super.visitMethod(access, name, type, signature, thrown) : null;
        }

        @Override
        public void visitEnd() {}
    }

    /** The members of a stub without its header. */
    private static final class Body extends Members {
        Body(ClassVisitor next) {
            super(next, it -> !it.equals(IMPLICIT_CONSTRUCTOR));
        }

        @Override
        public void visit(int version, int access, String name, String signature, String parent, String[] interfaces) {}

        @Override
        public void visitSource(String source, String debug) {}
    }
}
